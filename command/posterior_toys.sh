#!/usr/bin/env bash
# Posterior meta-replay on its authors' two toys, six modes in the plane and three functions of a number, beside
# separate networks, fine-tuning and the prior-focused methods, each with the options that are published for the toy:
# two lines for PR-BbB on regression-1d, and none there for separate networks (see models/posterior_replay.py), whose
# options fine-tuning has on both. Ten seeds; five of the slow ones, which are separate networks and fine-tuning (up to
# 10,001 updates per task) and vcl (a hundred networks drawn per update).
#
#   bash command/posterior_toys.sh                      everything; tables and figures go to results/posterior/
#   bash command/posterior_toys.sh "--posterior bbb"    only rows that contain these words; tables to runs/posterior/
#
# The folder of each run has the picture of what it learnt, predictions.png. JOBS, ARGS, and what happens when it is
# called again: see compare.sh.
set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")" words="${1:-}" ran=0 failed=0
export RUNS=runs/posterior BASELINE=
ten="--seeds 1 2 3 4 5 6 7 8 9 10" five="--seeds 1 2 3 4 5"
rows="--model posterior_replay --posterior bbb $ten
--model posterior_replay --posterior dirac $ten
--model posterior_replay --posterior bbb --protection separate $five
--model posterior_replay --posterior dirac --protection separate $five
--model posterior_replay --posterior bbb --protection none $five
--model posterior_replay --posterior dirac --protection none $five
--model ewc_posterior $ten
--model vcl $five"

compare() { # DATASET, a row of its own
    local all="$rows"$'\n'"$2 $ten"
    [ -z "$words" ] || grep -qF -e "$words" <<<"$all" || return 0
    ran=1
    bash "$here/compare.sh" "bash command/posterior_toys.sh" "$1" "results/posterior/$1" ${words:+"$words"} <<<"$all" ||
        failed=1
}

compare modes-2d "--model ewc_posterior --heads split"
compare regression-1d "--model posterior_replay --posterior bbb --beta 0.001 --regularizer mse --hmlp_arch 50,50 \
--cond_emb_size 2 --clip_grad_norm 1 --hyper_gauss_init --keep_orig_init"
[ "$ran" = 1 ] || { echo "posterior_toys: no row has the words '$words'" >&2; exit 2; }
exit "$failed"
