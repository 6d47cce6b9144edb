#!/usr/bin/env bash
# What only a machine with a GPU can show; run it there before trusting the CUDA path. Not run yet.
#
#   bash command/check_cuda.sh
#
# 1. The tests, among them those that compare CPU and GPU. 2. Three seeds of DualPrompt on seq-glyphs in float32 and in
# bf16: it fails unless their mean A_auc lie within 1 point. 3. A ViT-B/16 with random weights at 224 px, batch 64, on
# random pictures: DualPrompt, MePo on MISA, and the meta stage, with an error at any warning; the seconds are printed.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
"$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "check_cuda: this machine shows no CUDA device" >&2
    exit 2
}

"$VENV/bin/python" -m pytest -q

for precision in 32 bf16; do
    "$VENV/bin/python" main.py --model dualprompt --dataset seq-glyphs --seeds 1 2 3 --precision "$precision" \
        --device cuda --results runs/check_cuda
done
"$VENV/bin/python" -m utils.report runs/check_cuda/seq-glyphs --out runs/check_cuda
"$VENV/bin/python" - runs/check_cuda/seq-glyphs <<'COMPARE'
import json
import sys
from pathlib import Path

import yaml

found = {"32": {}, "bf16": {}}
for file in sorted(Path(sys.argv[1]).rglob("summary.json")):
    run = yaml.safe_load((file.parent / "config.yaml").read_text())["run"]
    found[run["precision"]][run["seed"]] = json.loads(file.read_text())["A_auc"]
means = {precision: 100 * sum(seeds.values()) / len(seeds) for precision, seeds in found.items()}
print(f"A_auc in float32 {means['32']:.2f}, in bf16 {means['bf16']:.2f}")
sys.exit(abs(means["32"] - means["bf16"]) > 1)
COMPARE

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
pictures="$work/pictures"
mkdir "$pictures"
"$VENV/bin/python" - "$pictures" <<'MAKE'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

draw = np.random.default_rng(0)
for label in range(20):
    folder = Path(sys.argv[1]) / f"class{label:02}"
    folder.mkdir()
    for k in range(40):
        Image.fromarray(draw.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(folder / f"{k}.png")
MAKE
common=(--dataset seq-folder --data_dir "$pictures" --cache_dir "$work" --checkpoint_dir "$work" --device cuda
    --backbone vit_base_patch16_224 --backbone_path random --results "$work/runs" --precision bf16)
run() { "$VENV/bin/python" -W error main.py "${common[@]}" "$@"; }
time run --model dualprompt
time run --model mepo_meta --samples 20 --group_size 20 --num_tasks 2 --meta_epochs 1 --save_to "$work/meta"
time run --model mepo_cov --samples 20 --backbone_path "$work/meta/meta_epoch_1.safetensors" --save_to "$work/meta"
time run --model mepo --host misa --load_pt none \
    --meta_path "$work/meta/meta_epoch_1.safetensors" --cor_path "$work/meta/covariance.npy"
