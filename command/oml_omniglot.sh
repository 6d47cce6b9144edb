#!/usr/bin/env bash
# OML on Omniglot in the published setting. Features of conv6-256 at 84 px are meta-learnt on the background alphabets,
# by the README of the 2020 release or as in 2019 (a prediction network of two layers, first-order gradients, 15,000
# meta steps of one class; the meta-gradient is not clipped, as it was then), or trained there as a classifier, the same
# with the penalty of SR-NN, or not at all; then they are frozen, and the evaluation alphabets are learnt on top. A
# trajectory of 2019 was meant to have all 20 images of a class; here it has 10, as 5 of the 15 for training are for the
# query. The oracle learns on the features of 2020, in five passes over mixed classes.
#
#   DATA_ROOT=/datasets bash command/oml_omniglot.sh [WORDS]      RUNS=50: as many repetitions as published
#
# A meta step of 2020 has 45 images, 0.36 TFLOP; 700,000 of them are 252,000 TFLOP: 56 minutes at the rate that
# DualPrompt reached on an H100 in float32, 75 TFLOP/s (docs/gpu.md), or 29 days at 0.1 TFLOP/s. 45 epochs as a
# classifier are 5,200 TFLOP, the features of all images of 600 classes 32 TFLOP; a search has 15 to 40 runs. All this is
# arithmetic: it has not been run on the real data yet.
#
# DATA_ROOT  --data_dir (default: data)    CKPT_ROOT  what stages make (default: checkpoints)
# COUNTS     numbers of classes (default: the release's, 10 50 100 200 600)
# RATES, JOBS, ARGS, and what happens when it is called again: see run_oml.sh. --download in ARGS fetches the data.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
made="${CKPT_ROOT:-checkpoints}/oml_omniglot" out=results/oml/omniglot
on="--dataset omniglot --backbone conv6-256"
in_2019="--tasks 1 --update_step 10 --meta_batch 10 --steps 15000 --pln_layers 2 --first_order"
export RESULTS=runs/oml_omniglot COUNTS="${COUNTS:-10 50 100 200 600}"

bash command/run_oml.sh "${RUNS:+RUNS=$RUNS }bash command/oml_omniglot.sh" seq-omniglot "$out" "$@" <<ROWS
stage $on --model oml_meta --save_to '$made/2020'
stage $on --model oml_meta $in_2019 --save_to '$made/2019'
stage $on --model supervised --save_to '$made/pretraining.safetensors'
stage $on --model srnn --save_to '$made/srnn.safetensors'
oml --model oml --rln '$made/2020/rln.safetensors'
oml-2019 --model oml --rln '$made/2019/rln.safetensors' --pln_layers 2
pretraining --model oml --backbone_path '$made/pretraining.safetensors'
srnn --model oml --backbone_path '$made/srnn.safetensors'
scratch --model oml --rln none
oracle --model oml --rln '$made/2020/rln.safetensors' --n_tasks 1 --n_epochs 5
ROWS
[ $# = 0 ] || exit 0
# shellcheck disable=SC2086  # it is a list
"$VENV/bin/python" main.py representation $on --data_dir "${DATA_ROOT:-data}" --out "$out" \
    "$made/2020/rln.safetensors" "$made/2019/rln.safetensors" "$made/pretraining.safetensors" "$made/srnn.safetensors"
