#!/usr/bin/env bash
# The tables of README: every method on one of the datasets on board, and MePo in all its forms, three seeds each.
#
#   bash command/variants.sh seq-digits      about 6 minutes on two CPU cores once the stages are made
#   bash command/variants.sh seq-glyphs      about 40 minutes
#   bash command/variants.sh DATASET [options of main.py]
#
# Table and figure go to runs/variants/.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dataset="${1:?name a dataset: bash command/variants.sh seq-digits}"
shift
. "$repo/command/setup.sh"
cd "$repo"

run() {
    "$VENV/bin/python" main.py --dataset "$dataset" --seeds 1 2 3 --results runs/variants "$@"
}

for host in dualprompt misa; do
    run --model "$host" "$@"
    run --model mepo --host "$host" "$@"
done
run --model er "$@"
run --model mepo --align_form exact "$@"
run --model mepo --align_stats running "$@"
run --model mepo --align_form exact --align_stats running "$@"
run --model mepo --cor_path none "$@"  # refined backbone only
run --model mepo --meta_path none "$@" # alignment only
"$VENV/bin/python" -m utils.report "runs/variants/$dataset" --out runs/variants
