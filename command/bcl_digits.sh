#!/usr/bin/env bash
# BCL and the baselines it came with on permuted digits: 10 domains of scikit-learn's digits, an MLP, one pass, minibatches
# of 10, 50 samples of memory per task for every method, 10 seeds. Rates as command/choose_bcl_digits.sh found them on
# other permutations, but for EWC, whose best penalty there, 100, diverges over ten tasks; it takes the next. The second
# `er_ring` takes as many steps of SGD per minibatch as `bcl` does.
#
#   bash command/bcl_digits.sh                     every row
#   bash command/bcl_digits.sh "--model bcl"       only rows that contain these words
#
# 5 minutes on two CPU cores. JOBS rows at a time (default 2), one thread each, so that a row run again gives the
# same numbers. Called again it goes on with what is missing. Table, paired differences to the row BASELINE (default:
# er_ring) and pictures: runs/bcl_digits/.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
failed=0

grep -e "${1:---model}" <<'ROWS' | xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --device cpu \
    --dataset perm-digits --n_tasks 10 --results runs/bcl_digits --resume auto --seeds 1 2 3 4 5 6 7 8 9 10 || failed=1
--model bcl --n_memories 50 --lr 0.2
--model bcl --n_memories 50 --lr 0.2 --clear_grad
--model bcl --n_memories 50 --lr 0.7 --form single
--model er_ring --n_memories 50 --lr 0.2
--model er_ring --n_memories 50 --lr 0.2 --inner_steps 4
--model gem --n_memories 50 --lr 0.2
--model agem --n_memories 50 --lr 0.1
--model ewc --n_memories 50 --lr 0.05 --memory_strength 30
--model ftml --n_memories 50 --lr 0.7
--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr 0.1
ROWS
baseline=()
[ $# -gt 0 ] || baseline=(--baseline "${BASELINE:-er_ring}")
"$VENV/bin/python" main.py report runs/bcl_digits/perm-digits ${baseline[@]+"${baseline[@]}"} --out runs/bcl_digits
exit "$failed" # 1 if a row did not end, as one does whose loss is not finite
