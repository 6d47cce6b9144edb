#!/usr/bin/env bash
# What only a machine with a GPU can show; run it there before trusting the CUDA path.
#
#   bash command/check_cuda.sh [tests] [goldens] [bf16] [vit] [speed]      all but the last when none is named
#
# tests    the suite, with the tests that need a GPU: no training step of any method waits for the device.
# goldens  every recorded case again on the GPU, in float32: within 1e-3 of the largest number of each array.
#          GOLDENS names the folder (default: tests/goldens).
# bf16     three seeds of DualPrompt on seq-glyphs in float32 and in bf16: mean A_auc within 1 point.
# vit      a ViT-B/16 with random weights at 224 px, batch 64, on random pictures: DualPrompt, the stages of MePo and
#          MISA + MePo, any warning an error; the seconds are printed.
# speed    the same network timed by phase (docs/speed.md), then the whole published clock of CIFAR-100, 50,000 images in
#          the stream and 8.6 evaluations for each, with DualPrompt in bf16 on random pictures of its size.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
"$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "check_cuda: this machine shows no CUDA device" >&2
    exit 2
}
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

check_tests() { "$VENV/bin/python" -m pytest -q; }

check_goldens() { GOLDENS_DEVICE=cuda "$VENV/bin/python" -m pytest -q tests/parity; }

check_bf16() {
    for precision in 32 bf16; do
        "$VENV/bin/python" main.py --model dualprompt --dataset seq-glyphs --seeds 1 2 3 --precision "$precision" \
            --device cuda --results "$work/bf16"
    done
    "$VENV/bin/python" - "$work/bf16" <<'COMPARE'
import json
import sys
from pathlib import Path

import yaml

found = {"32": {}, "bf16": {}}
for file in sorted(Path(sys.argv[1]).rglob("summary.json")):
    run = yaml.safe_load((file.parent / "config.yaml").read_text())["run"]
    summary = json.loads(file.read_text())
    found[run["precision"]][run["seed"]] = summary["A_auc"]
    print(f"{run['precision']:>4}, seed {run['seed']}: A_auc {100 * summary['A_auc']:.2f}, {summary['seconds']:.0f} s")
means = {precision: 100 * sum(seeds.values()) / len(seeds) for precision, seeds in found.items()}
print(f"A_auc in float32 {means['32']:.2f}, in bf16 {means['bf16']:.2f}")
sys.exit(abs(means["32"] - means["bf16"]) > 1)
COMPARE
}

check_vit() {
    mkdir "$work/pictures"
    "$VENV/bin/python" - "$work/pictures" <<'MAKE'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

draw = np.random.default_rng(0)
for label in range(20):
    folder = Path(sys.argv[1]) / f"class{label:02}"
    folder.mkdir()
    for k in range(80):
        Image.fromarray(draw.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(folder / f"{k}.png")
MAKE
    local common=(--dataset seq-folder --data_dir "$work/pictures" --cache_dir "$work" --checkpoint_dir "$work"
        --device cuda --backbone vit_base_patch16_224 --results "$work/vit" --precision bf16 --batch_size 64)
    local meta="$work/meta/meta_epoch_1.safetensors"
    run() { time "$VENV/bin/python" -W error main.py "${common[@]}" "$@"; }
    run --backbone_path random --model dualprompt
    run --backbone_path random --model mepo_meta --samples 40 --group_size 20 --num_tasks 2 --meta_epochs 1 \
        --save_to "$work/meta"
    run --backbone_path "$meta" --model mepo_cov --samples 40 --save_to "$work/meta"
    run --backbone_path random --model mepo --host misa --load_pt none --meta_path "$meta" \
        --cor_path "$work/meta/covariance.npy"
    unset -f run
}

check_speed() {
    "$VENV/bin/python" main.py benchmark --device cuda --backbones vit_base_patch16_224 --methods dualprompt mepo:misa \
        --repeats 10 --seconds 300
    "$VENV/bin/python" - "$work/data/cifar-100-python" <<'MAKE'
import pickle
import sys
from pathlib import Path

import numpy as np

folder, draw = Path(sys.argv[1]), np.random.default_rng(0)
folder.mkdir(parents=True)
for part, count in (("train", 50_000), ("test", 10_000)):
    labels = [k % 100 for k in range(count)]
    content = {"data": draw.integers(0, 256, (count, 3072), dtype=np.uint8), "fine_labels": labels}
    (folder / part).write_bytes(pickle.dumps(content))
(folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {k}" for k in range(100)]}))
MAKE
    time "$VENV/bin/python" main.py --model dualprompt --dataset seq-cifar100 --data_dir "$work/data" --device cuda \
        --cache_dir "$work" --backbone vit_base_patch16_224 --backbone_path random --precision bf16 --seed 1 \
        --results "$work/speed"
}

[ $# -gt 0 ] || set -- tests goldens bf16 vit
for part; do
    declare -F "check_$part" >/dev/null || { echo "check_cuda: no part $part; tests, goldens, bf16, vit, speed" >&2; exit 2; }
    echo "check_cuda: $part"
    "check_$part"
done
echo "check_cuda: passed"
