#!/usr/bin/env bash
# OML on sine waves. Features are meta-learnt on the functions of `sines`, or trained there in the ordinary way on as
# many samples, a column of the output for each function of a slot (pretraining, as the release has it), or not at all;
# then ten functions of `seq-sines` are learnt one after the other, 40 minibatches of 32 each, by SGD at the release's
# rate, from the head that came with the features.
#
#   bash command/oml_sines.sh                    the settings of 2020
#   SETTING=2019 bash command/oml_sines.sh       those of 2019: deeper features, a prediction network of two layers,
#                                                minibatches of 32, first-order gradients; 30 minibatches per function
#                                                for 40, as many as the 1,000 points of a function give. Not as then:
#                                                slots are drawn, the rate is constant, samples have 50 slots of which
#                                                10 are used, and pretraining sees a third of the samples, in five times
#                                                as many steps
#
# STEPS  meta steps (default: 10000 in 2020, where 300,000 are published; 2000 in 2019, 20,000)
# RUNS   repetitions, seeds 1, 2 ... (default: 50)
#
# Table and pictures go to results/oml/sines-SETTING/: errors over functions learnt, and on each at the end. JOBS, ARGS
# (but not --seeds: those are RUNS'), and what happens when it is called again: see compare.sh.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
setting="${SETTING:-2020}"
need_whole STEPS "${STEPS:-1}"
need_whole RUNS "${RUNS:-50}"
case "$setting" in
2020)
    network="--backbone mlp-400-400-400-400-400 --pln_layers 1"
    meta="--steps ${STEPS:-10000}"
    plain="$meta --iid"
    ;;
2019)
    network="--backbone mlp-300-300-300-300-300-900 --pln_layers 2 --pln_width 300"
    meta="--steps ${STEPS:-2000} --update_step 30 --batch_size 32 --capacity 10 --first_order"
    plain="--steps $((${STEPS:-2000} * 5)) --update_step 1 --batch_size 32 --capacity 10 --iid"
    ;;
*)
    echo "oml_sines: SETTING=$setting: neither 2019 nor 2020" >&2
    exit 2
    ;;
esac
made="checkpoints/oml_sines/$setting-${STEPS:-default}" seeds="--seeds $(seq -s " " "${RUNS:-50}")"
caller="${RUNS:+RUNS=$RUNS }${STEPS:+STEPS=$STEPS }SETTING=$setting bash command/oml_sines.sh"
export RUNS="runs/oml_sines/$setting-${STEPS:-default}"

rows="--model oml $network --rln $made/oml/rln.safetensors $seeds
--model oml $network --rln $made/pretraining/rln.safetensors $seeds
--model oml $network --rln none $seeds"
grep -q -F -e "${1:---model}" <<<"$rows" || { echo "oml_sines: no row has the words '$1'" >&2; exit 2; }

OMP_NUM_THREADS=1 xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --model oml_meta --dataset sines \
    --results "$RUNS" --resume auto ${ARGS:-} <<STAGES
$network $meta --save_to $made/oml
$network $plain --save_to $made/pretraining
STAGES
BASELINE='' REPORT=--interval exec bash command/compare.sh "$caller" seq-sines "results/oml/sines-$setting" "$@" <<<"$rows"
