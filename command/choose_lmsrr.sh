#!/usr/bin/env bash
# How the rates of command/lmsrr_icons.sh were chosen: five for each of its rows, on seq-icons-dev and seq-glyphs-dev,
# streams of pretraining classes, seed 100, by the accuracy over all classes at the end (class_final), mean of both
# streams. The streams have half the classes of the table's: 5 tasks of 20 with half the memory, 100 images, else as the
# table, in bf16. Where the best rate is the first or the last one, ask for further ones by RATES.
#
#   bash command/choose_lmsrr.sh [WORDS]      only lines that contain WORDS, e.g. "--model lwf"
#
# Prints of each row what every rate gave on both streams, then the best. JOBS runs at a time (default 2), one thread
# each. A rate at which a run diverges, which ends with an error, is none of a row's. Called again it goes on with what
# is missing in runs/choose_lmsrr/.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
pair="--backbone vit_tiny_glyphs+vit_tiny_icons" last="--trainable last --last_blocks 3"
plain="--optimizer plain --train_mask none --memory_size 100" exact="--exact_reservoir"

rates_of() { # ROW: iCaRL's loss is a mean over all outputs, so its rates are larger
    case "$1" in
    *"--model icarl "*) echo "${RATES:-0.1 0.3 1 3 10}" ;;
    *) echo "${RATES:-0.003 0.01 0.03 0.1 0.3}" ;;
    esac
}

rows() {
    cat <<ROWS
--model lmsrr --buffer_size 100 $pair
--model lmsrr --alpha 0 --buffer_size 100 $pair
--model lmsrr --fusion none --buffer_size 100 $pair
--model er $plain $exact $last $pair
--model der $plain $exact $last $pair
--model derpp $plain $exact $last $pair
--model agem --n_memories 20 --replay_batch_size 32 --train_mask none --inputs published $last $pair
--model fdr $plain $last $pair
--model lwf $last $pair
--model si --train_mask none $last $pair
--model icarl $plain $last $pair
--model finetune --optimizer sgd --train_mask none $last $pair
--model derpp $plain $exact $last --backbone vit_tiny_glyphs
--model derpp $plain $exact $last --backbone vit_tiny_icons
ROWS
}

chosen="$(rows | grep -F -e "${1:---model}")" || { echo "choose_lmsrr: no row has the words '$1'" >&2; exit 2; }
place() { echo "runs/choose_lmsrr/${1//[^a-z0-9.]/_}/$2"; } # of the runs of a ROW at a RATE

while read -r row; do
    for rate in $(rates_of "$row"); do
        for dataset in seq-icons-dev seq-glyphs-dev; do
            echo "$row --lr $rate --dataset $dataset --results $(place "$row" "$rate")"
        done
    done
done <<<"$chosen" |
    xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --scenario class-il --n_tasks 5 --batch_size 32 \
        --online_iter 1 --eval_period -1 --precision bf16 --seed 100 --resume auto ||
    echo "choose_lmsrr: not every setting has ended, see the errors above" >&2
while read -r row; do
    ended=()
    for rate in $(rates_of "$row"); do
        folder="$(place "$row" "$rate")"
        # shellcheck disable=SC2012  # names of runs are plain
        [ "$(ls "$folder"/*/*/*/summary.json 2>/dev/null | wc -l)" -lt 2 ] || ended+=("$folder")
    done
    echo
    echo "$row"
    [ ${#ended[@]} -gt 0 ] || { echo "no rate has ended on both streams"; continue; }
    "$VENV/bin/python" main.py choose "${ended[@]}" --option lr --by class_final --rule mean 2>&1
done <<<"$chosen"
