#!/usr/bin/env bash
# Stages 1 and 2 of MePo on ImageNet-1K: the refined backbone and its meta covariance, from one of the seven ViT-B/16.
#
#   bash command/mepo_stages.sh SOURCE [options of main.py]
#
# SOURCE: sup21k, orig21k_1k, sup21k_1k, ibot21k, ibot1k, dino1k or mocov3_1k; the weights lie in CKPT_ROOT (default:
# checkpoints), ImageNet in DATA_ROOT/imagenet (default: data). The products go to CKPT_ROOT/mepo/SOURCE; called again
# it goes on where it stopped. Settings of MePo's scripts: 200 images per class, alpha 0.1, 50 pseudo tasks; 5, 2 and 30
# meta epochs for sup21k, sup21k_1k and ibot21k. A meta epoch is 1.0 million image passes: about 50 minutes on an H100,
# 23 with --precision bf16, by the rate of a short run (docs/gpu.md); add the decoding of ImageNet before the first one.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

source="${1:?give a source, e.g. sup21k}"
shift
checkpoints="${CKPT_ROOT:-checkpoints}"
products="$checkpoints/mepo/$source"
common=(--dataset imagenet --backbone "$source" --data_dir "${DATA_ROOT:-data}" --checkpoint_dir "$checkpoints"
    --results "${RESULTS:-runs}" --save_to "$products" --resume auto)

case " $* " in
*" --dry_run "*)
    "$VENV/bin/python" main.py --model mepo_meta "${common[@]}" "$@"
    exec "$VENV/bin/python" main.py --model mepo_cov "${common[@]}" "$@"
    ;;
esac
meta() { ls -v "$products"/meta_epoch_*.safetensors 2>/dev/null | tail -n 1; }
[ -e "$products/meta_complete" ] || {
    "$VENV/bin/python" main.py --model mepo_meta "${common[@]}" --export pth "$@"
    touch "$products/meta_complete"
}
[ -e "$products/covariance.npy" ] ||
    "$VENV/bin/python" main.py --model mepo_cov "${common[@]}" --backbone_path "$(meta)" "$@"
echo "use them with --backbone $source --meta_path $(meta) --cor_path $products/covariance.npy"
