#!/usr/bin/env bash
# How the rates of bcl_digits.sh were chosen: on three permutations that its table does not have (another
# --domain_seed), three seeds, each method at each of three rates; of each the one with the best task_final.
#
#   bash command/choose_bcl_digits.sh
#
# JOBS runs at a time (2), of one thread each. The table is in runs/choose_bcl/perm-digits/.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

main() {
    OMP_NUM_THREADS=1 xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --dataset perm-digits --domain_seed 1 \
        --n_tasks 3 --seeds 1 2 3 --device cpu --resume auto --results runs/choose_bcl
}

for lr in 0.01 0.03 0.1; do
    for method in bcl "bcl --form single" "bcl --clear_grad" er_ring gem agem ewc ftml; do
        echo "--model $method --n_memories 50 --lr $lr"
    done
    echo "--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr $lr"
done | main
"$VENV/bin/python" main.py report runs/choose_bcl/perm-digits
