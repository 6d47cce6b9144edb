#!/usr/bin/env bash
# OML on board, after its experiment on Omniglot. One network, conv4-64: its features are meta-learnt on `glyphs`, or
# trained there as a classifier, the same with the penalty of SR-NN, or not at all; then they are frozen, and
# `seq-characters` is learnt on top. Meta-learning sees 180,000 images (4,000 meta steps of 45), a classifier 200,000
# (four epochs). The oracle learns on OML's features, in five passes over mixed classes. The last row is another
# network, the shipped ViT, which is larger and was trained on many more images of the same characters.
#
#   bash command/oml_characters.sh               every row; tables and pictures go to results/oml/characters/
#   bash command/oml_characters.sh "srnn"        only rows that contain these words; tables to runs/oml_characters/
#   RUNS=50 bash command/oml_characters.sh       as many repetitions as published; the default is 10
#   STEPS=8000 bash command/oml_characters.sh    so many meta steps, and an epoch of a classifier for every thousand
#                                                of them; to folders of their own
#
# COUNTS, RATES, JOBS, ARGS, and what happens when it is called again: see run_oml.sh.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
name="characters${STEPS:+-$STEPS}" steps="${STEPS:-4000}"
[[ "$steps" =~ ^[1-9][0-9]*000$ ]] || { echo "oml_characters: STEPS=$steps: give thousands, as 8000" >&2; exit 2; }
made="checkpoints/oml_$name" out="results/oml/$name"
on="--dataset glyphs --backbone conv4-64" epochs="--n_epochs $((steps / 1000))"
export RESULTS="runs/oml_$name"

bash command/run_oml.sh "${STEPS:+STEPS=$STEPS }${RUNS:+RUNS=$RUNS }bash command/oml_characters.sh" seq-characters "$out" "$@" <<ROWS
stage $on --model oml_meta --steps $steps --save_to $made/oml
stage $on --model supervised $epochs --save_to $made/pretraining.safetensors
stage $on --model srnn $epochs --save_to $made/srnn.safetensors
oml --model oml --rln $made/oml/rln.safetensors
pretraining --model oml --backbone_path $made/pretraining.safetensors
srnn --model oml --backbone_path $made/srnn.safetensors
scratch --model oml --rln none
oracle --model oml --rln $made/oml/rln.safetensors --n_tasks 1 --n_epochs 5
vit --model oml --rln none --backbone vit_tiny_glyphs
ROWS
[ $# = 0 ] || exit 0
# shellcheck disable=SC2086  # it is a list
"$VENV/bin/python" main.py representation $on --out "$out" \
    "$made/oml/rln.safetensors" "$made/pretraining.safetensors" "$made/srnn.safetensors"
