#!/usr/bin/env bash
# Runs BCL and the baselines it came with on a dataset, tasks told or domain by domain, in one pass of minibatches of 10;
# the files bcl_*.sh call it, but bcl_digits.sh, which has rates of its own. What a method's authors published for the
# dataset stands beside the method, in `published`; further options hold for every row.
#
#   bash command/run_bcl.sh DATASET [options of main.py]
#
# DATA_ROOT  --data_dir (default: data)       SEEDS      default: 1 2 3 4 5
# RESULTS    --results (default: runs/bcl)    ROWS       only rows that contain these words, e.g. "--model bcl"
# MEMORY     samples of memory per task, the same for every method (default: 256)
# BCL        options of the three rows of bcl, beside what is published for the dataset
#
# Called again it goes on with the runs that are not complete. Ends with the table, and with the differences to er_ring.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

dataset="${1:?give a dataset}"
shift
results="${RESULTS:-runs/bcl}" failed=0
rows=("--model bcl" "--model bcl --form single" "--model bcl --clear_grad"
    "--model er_ring" "--model gem" "--model agem" "--model ewc" "--model ftml"
    "--model finetune --optimizer sgd --lr 0.1 --batch_size 10 --online_iter 1 --inputs plain")
for words in "${rows[@]}"; do
    [[ "$words" == *"${ROWS:-}"* ]] || continue
    [[ "$words" != "--model bcl"* ]] || words+=" ${BCL:-}"
    [[ "$words" == *finetune* ]] || words+=" --n_memories ${MEMORY:-256}"
    # shellcheck disable=SC2086  # words and SEEDS are lists; a run whose loss is not finite ends with 1
    "$VENV/bin/python" main.py $words --dataset "$dataset" --seeds ${SEEDS:-1 2 3 4 5} --resume auto \
        --data_dir "${DATA_ROOT:-data}" --results "$results" "$@" || { failed=$?; [ $failed = 1 ] || exit $failed; }
done
case " $* " in *" --dry_run "*) exit 0 ;; esac
baseline=()
[ -n "${ROWS:-}" ] || baseline=(--baseline er_ring)
"$VENV/bin/python" main.py report "$results/$dataset" ${baseline[@]+"${baseline[@]}"}
exit "$failed"
