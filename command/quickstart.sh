#!/usr/bin/env bash
# The main job on two CPU cores: MePo from a pretrained backbone to a blurry stream of emoji.
#
#   bash command/quickstart.sh [options of main.py]
#
# Both rows at a time, which share the cores that are free:
# 1. MISA alone on seq-emoji, three seeds, after its prompts were warmed up on icons (once, kept in checkpoints/).
# 2. MePo on the same streams: meta stage and meta covariance on icons (once as well), then MISA on top.
# Then a table and a figure that compare the two, in runs/quickstart/, and what they say in a sentence.
#
# Called again it goes on where it stopped; runs that are complete are not repeated.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

for word in "$@"; do
    case "$word" in
    --model | --model=* | --dataset | --dataset=* | --results | --results=* | --dry_run | --help | -h)
        echo "quickstart: ${word%%=*} is its own; use python main.py for another run" >&2
        exit 2
        ;;
    esac
done
seeds=(--seeds 1 2 3)
case " $* " in *" --seeds"* | *" --seed "* | *" --seed="*) seeds=() ;; esac
run=("$VENV/bin/python" main.py --dataset seq-emoji ${seeds[@]+"${seeds[@]}"} --results runs/quickstart --resume auto "$@")

"${run[@]}" --model misa --dry_run >/dev/null # a wrong option is one line here, and one for each row below

printf '%s\n' misa mepo | xargs -P 2 -L 1 "${run[@]}" --model
"$VENV/bin/python" main.py report runs/quickstart/seq-emoji --baseline host --out runs/quickstart
