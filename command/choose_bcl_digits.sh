#!/usr/bin/env bash
# How the rates of command/bcl_digits.sh were chosen: on the first three permutations of another --domain_seed than the
# table's, three seeds, 50 samples of memory per task, by the mean accuracy over tasks at the end (task_final). Grids go
# on until the best rate has a worse one on either side. `er_ring` was also tried with four steps per minibatch, as many
# as `bcl` takes; EWC with stronger penalties.
#
#   bash command/choose_bcl_digits.sh [WORDS]      only lines that contain WORDS, e.g. "--model ftml"
#
# About 6 minutes on two CPU cores. JOBS runs at a time (default 2), one thread each. Settings that diverge end with an
# error and are no rows. Table: runs/choose_bcl/table.md.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1

grep -e "${1:---model}" <<'RUNS' | xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --device cpu \
    --dataset perm-digits --domain_seed 1 --n_tasks 3 --seeds 1 2 3 --results runs/choose_bcl --resume auto ||
    echo "choose_bcl_digits: not every setting has ended, see the errors above" >&2
--model bcl --n_memories 50 --lr 0.05
--model bcl --n_memories 50 --lr 0.1
--model bcl --n_memories 50 --lr 0.2
--model bcl --n_memories 50 --lr 0.3
--model bcl --form single --n_memories 50 --lr 0.2
--model bcl --form single --n_memories 50 --lr 0.3
--model bcl --form single --n_memories 50 --lr 0.5
--model bcl --form single --n_memories 50 --lr 0.7
--model bcl --form single --n_memories 50 --lr 1
--model bcl --clear_grad --n_memories 50 --lr 0.1
--model bcl --clear_grad --n_memories 50 --lr 0.2
--model bcl --clear_grad --n_memories 50 --lr 0.3
--model bcl --clear_grad --n_memories 50 --lr 0.5
--model er_ring --n_memories 50 --lr 0.05
--model er_ring --n_memories 50 --lr 0.1
--model er_ring --n_memories 50 --lr 0.2
--model er_ring --n_memories 50 --lr 0.3
--model er_ring --inner_steps 4 --n_memories 50 --lr 0.05
--model er_ring --inner_steps 4 --n_memories 50 --lr 0.1
--model er_ring --inner_steps 4 --n_memories 50 --lr 0.2
--model er_ring --inner_steps 4 --n_memories 50 --lr 0.3
--model gem --n_memories 50 --lr 0.05
--model gem --n_memories 50 --lr 0.1
--model gem --n_memories 50 --lr 0.2
--model gem --n_memories 50 --lr 0.3
--model agem --n_memories 50 --lr 0.05
--model agem --n_memories 50 --lr 0.1
--model agem --n_memories 50 --lr 0.2
--model agem --n_memories 50 --lr 0.3
--model ewc --n_memories 50 --memory_strength 3 --lr 0.1
--model ewc --n_memories 50 --memory_strength 10 --lr 0.1
--model ewc --n_memories 50 --memory_strength 100 --lr 0.1
--model ewc --n_memories 50 --memory_strength 100 --lr 0.02
--model ewc --n_memories 50 --memory_strength 30 --lr 0.05
--model ewc --n_memories 50 --memory_strength 100 --lr 0.05
--model ewc --n_memories 50 --memory_strength 300 --lr 0.05
--model ftml --n_memories 50 --lr 0.3
--model ftml --n_memories 50 --lr 0.5
--model ftml --n_memories 50 --lr 0.7
--model ftml --n_memories 50 --lr 1
--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr 0.05
--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr 0.1
--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr 0.2
--model finetune --optimizer sgd --batch_size 10 --online_iter 1 --lr 0.3
RUNS
"$VENV/bin/python" main.py report runs/choose_bcl/perm-digits --out runs/choose_bcl
