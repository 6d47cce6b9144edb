#!/usr/bin/env bash
# OML in general continual learning: one step per image of a Si-Blurry stream of seq-glyphs, five seeds, beside replay,
# fine-tuning of the head, nearest class mean and RanPAC on the same features: those of the shipped ViT, and those of
# conv4-64 from the stages of oml_characters.sh. Three learning rates of each row are tried on a fifth of the training
# images that is held out, on a stream (seed 100) that the table does not use; the best A_auc decides.
#
#   bash command/oml_glyphs.sh            everything; table and picture go to results/oml/glyphs/
#   bash command/oml_glyphs.sh "WORDS"    only rows that contain these words; table to runs/oml_glyphs/
#
# JOBS, ARGS, and what happens when it is called again: see compare.sh.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1 RUNS=runs/oml_glyphs BASELINE=''
made=checkpoints/oml_characters searched="$(mktemp)" # its lines: the folders of runs
trap 'rm -f "$searched"' EXIT
online="0.003 0.001 0.0003" batches="0.02 0.005 0.001" chosen_rows=""
vit="--backbone vit_tiny_glyphs" conv="--backbone conv4-64 --backbone_path $made/oml/rln.safetensors"

rows() { # learning rates, tab, options of main.py; -: nothing is searched
    cat <<ROWS
$online	--model oml $vit --rln none
$batches	--model er --trainable head $vit
$batches	--model finetune --trainable head $vit
-	--model ncm $vit
-	--model ranpac $vit
$online	--model oml $conv
$online	--model oml --backbone conv4-64 --backbone_path $made/pretraining.safetensors
$online	--model oml --backbone conv4-64 --rln none
$batches	--model er --trainable head $conv
ROWS
}

wanted="$(rows | grep -F -e "${1:---model}")" || { echo "oml_glyphs: no row has the words '$1'" >&2; exit 2; }
xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --dataset glyphs --backbone conv4-64 --resume auto \
    --results runs/oml_characters <<STAGES
--model oml_meta --save_to $made/oml
--model supervised --n_epochs 4 --save_to $made/pretraining.safetensors
STAGES
while IFS=$'\t' read -r rates options; do
    search="$RUNS/search/${options//[^a-z0-9.]/_}" chosen=""
    if [ "$rates" != - ]; then
        for rate in $rates; do echo "$options --lr $rate"; done | xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py \
            --dataset seq-glyphs --validation 0.2 --seed 100 --eval_period 1000 --results "$search" --resume auto |
            tee "$searched"
        tried=() # by this call: others may lie beside them
        while IFS= read -r folder; do tried+=("$folder"); done <"$searched"
        chosen=" --lr $("$VENV/bin/python" main.py choose "${tried[@]}" --option lr --by A_auc --rule mean)"
    fi
    chosen_rows+="$options$chosen"$'\n'
done <<<"$wanted"
ARGS="${ARGS:---seeds 1 2 3 4 5}" bash command/compare.sh "bash command/oml_glyphs.sh" seq-glyphs \
    results/oml/glyphs ${1:+"--model"} <<<"${chosen_rows%$'\n'}"
