#!/usr/bin/env bash
# The main job on two CPU cores: MePo from a pretrained backbone to a blurry stream of handwritten digits.
#
#   bash command/quickstart.sh [options of main.py]
#
# 1. MISA alone on seq-digits, three seeds, after its prompts were warmed up on glyphs (once, kept in checkpoints/).
# 2. MePo on the same streams: meta stage and meta covariance on glyphs (once as well), then MISA on top.
# 3. A table and a figure that compare the two, in runs/quickstart/.
#
# Called again it goes on where it stopped; runs that are complete are not repeated.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

seeds=(--seeds 1 2 3)
case " $* " in *" --seeds"* | *" --seed "* | *" --seed="*) seeds=() ;; esac
for model in misa mepo; do
    "$VENV/bin/python" main.py --model "$model" --dataset seq-digits ${seeds[@]+"${seeds[@]}"} --results runs/quickstart \
        --resume auto "$@"
done
"$VENV/bin/python" main.py report runs/quickstart/seq-digits --out runs/quickstart
