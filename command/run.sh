#!/usr/bin/env bash
# Runs methods on a dataset in its published setting; the files named after datasets call it. The settings stand beside
# the methods and datasets: `python main.py --model METHOD --dataset DATASET --help` shows each with its source.
#
#   bash command/run.sh DATASET [METHOD ...] [options of main.py]
#
# METHOD     default: er l2p dualprompt coda mvp misa mepo
# DATA_ROOT  --data_dir (default: data)       CKPT_ROOT  --checkpoint_dir (default: checkpoints)
# SEEDS      default: 1 2 3 4 5               RESULTS    --results (default: runs)
#
# Called again it goes on with the runs that are not complete. Ends with the table of all runs on this dataset.
# The hours that those files name are the FLOPs of `--dry_run`, training and evaluations, at the rate that DualPrompt
# reached on an H100 by the same count: 75 TFLOP/s in float32, 261 in bf16 (docs/gpu.md).
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

dataset="${1:?give a dataset}"
shift
methods=()
while [ $# -gt 0 ] && [[ "$1" != -* ]]; do
    methods+=("$1")
    shift
done
[ ${#methods[@]} -gt 0 ] || methods=(er l2p dualprompt coda mvp misa mepo)

results="${RESULTS:-runs}"
# shellcheck disable=SC2206  # SEEDS is a list
seeds=(--seeds ${SEEDS:-1 2 3 4 5})
case " $* " in *" --seeds"* | *" --seed "* | *" --seed="*) seeds=() ;; esac
for method in "${methods[@]}"; do
    "$VENV/bin/python" main.py --model "$method" --dataset "$dataset" ${seeds[@]+"${seeds[@]}"} --resume auto \
        --data_dir "${DATA_ROOT:-data}" --checkpoint_dir "${CKPT_ROOT:-checkpoints}" --results "$results" "$@"
done
case " $* " in *" --dry_run "*) exit 0 ;; esac
exec "$VENV/bin/python" main.py report "$results/$dataset"
