#!/usr/bin/env bash
# BCL and its baselines on permuted digits, ten permutations one after the other, no download.
#
#   bash command/bcl_digits.sh
#
# Nine rows, ten seeds each, 50 samples kept per task by all that keep any, one pass in minibatches of ten, an MLP of
# three layers. Rates: choose_bcl_digits.sh. Ends with a table, the paired differences to er_ring and a picture of each
# row's tasks in runs/bcl_digits/perm-digits/.
#
# Expected: README, "What it shows". JOBS runs at a time (2), of one thread each. Called again it goes on.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

OMP_NUM_THREADS=1 xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --dataset perm-digits --n_tasks 10 \
    --seeds 1 2 3 4 5 6 7 8 9 10 --device cpu --resume auto --results runs/bcl_digits <<RUNS
--model bcl --n_memories 50 --lr 0.03
--model bcl --n_memories 50 --lr 0.03 --form single
--model bcl --n_memories 50 --lr 0.03 --clear_grad
--model gem --n_memories 50 --lr 0.03
--model er_ring --n_memories 50 --lr 0.03
--model ftml --n_memories 50 --lr 0.03
--model agem --n_memories 50 --lr 0.03
--model ewc --n_memories 50 --lr 0.03
--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr 0.03
RUNS
"$VENV/bin/python" main.py report runs/bcl_digits/perm-digits --baseline er_ring
