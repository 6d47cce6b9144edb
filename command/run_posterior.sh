#!/usr/bin/env bash
# Runs posterior meta-replay, separate networks, fine-tuning and the prior-focused methods on a dataset, with what is
# published for it beside the methods, fine-tuning with the options of separate networks; posterior_split_mnist.sh,
# posterior_perm_mnist.sh and posterior_cifar10.sh call it.
#
#   bash command/run_posterior.sh DATASET [options of main.py]
#
# DATA_ROOT  --data_dir (default: data)            SEEDS  default: 1 2 3 4 5
# RESULTS    --results (default: runs/posterior)   ROWS   only rows that contain these words, e.g. "--posterior bbb"
# ALL_ROWS      other rows, one per line
#
# Called again it goes on with the runs that are not complete. Ends with the table.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

dataset="${1:?give a dataset}"
shift
results="${RESULTS:-runs/posterior}" failed=0
lines="--model posterior_replay --posterior bbb
--model posterior_replay --posterior dirac
--model posterior_replay --posterior bbb --protection separate
--model posterior_replay --posterior dirac --protection separate
--model posterior_replay --posterior bbb --protection none
--model posterior_replay --posterior dirac --protection none
--model vcl
--model ewc_posterior"
while read -r words; do
    [[ "$words" == *"${ROWS:-}"* ]] || continue
    # shellcheck disable=SC2086  # words and SEEDS are lists; a run whose loss is not finite ends with 1
    "$VENV/bin/python" main.py $words --dataset "$dataset" --seeds ${SEEDS:-1 2 3 4 5} --resume auto \
        --data_dir "${DATA_ROOT:-data}" --results "$results" "$@" </dev/null ||
        { failed=$?; [ $failed = 1 ] || exit $failed; }
done <<<"${ALL_ROWS:-$lines}"
case " $* " in *" --dry_run "*) exit 0 ;; esac
"$VENV/bin/python" main.py report "$results/$dataset"
exit "$failed"
