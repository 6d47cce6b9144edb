#!/usr/bin/env bash
# OML's protocol on characters, class after class and an image at a time; oml_characters.sh and oml_omniglot.sh call it.
# For every row and number of classes learning rates are tried, each on five draws of classes (seeds 101 to 105), by the
# accuracy on the images that were learnt: three in the middle, then the next one while the best is the first or the last
# of those tried (the release tries all eight). The rate that is the best of most draws then learns other draws.
#
#   bash command/run_oml.sh CALLER DATASET OUT [WORDS] <ROWS
#
# CALLER  the command that made it
# OUT     the folder for tables and pictures, in one of its own for each number of classes
# WORDS   only rows that contain these; tables to RESULTS/
# ROWS    a name and options of main.py, a line each; --n_tasks 1: the classes come mixed; those of the name "stage"
#         are runs of their own, before all others
# COUNTS  numbers of classes (default: 10 50 100 200 400)
# RATES   what they are chosen from, the largest first (default: the release's)
# RUNS    repetitions, seeds 1, 2 ... (default: 10)
# RESULTS --results (default: runs/oml)
# DATA_ROOT  --data_dir (default: data)
#
# JOBS, ARGS (but not --seeds: those are RUNS'), and what happens when it is called again: see compare.sh. A rate is
# chosen by the runs of this call alone. It needs bash 4.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
caller="${COUNTS:+COUNTS=\"$COUNTS\" }${RATES:+RATES=\"$RATES\" }$1" dataset="$2" out="$3" words="${4:-}"
repetitions="${RUNS:-10}" results="${RESULTS:-runs/oml}" failed=0
given="$(cat)"
rows="$(sed '/^stage /d' <<<"$given" | grep -F -e "$words")" ||
    { echo "run_oml: no row has the words '$words'" >&2; exit 2; }
# shellcheck disable=SC2206  # they are lists
counts=(${COUNTS:-10 50 100 200 400}) rates=(${RATES:-0.03 0.01 0.003 0.001 0.0003 0.0001 0.00003 0.00001})
need_whole COUNTS "${counts[@]:-}"
need_whole RUNS "$repetitions"
case " ${ARGS:-} " in
*" --dry_run "*)
    echo "run_oml: ARGS has --dry_run, but rows are known when stages and searches have ended; ask main.py" >&2
    exit 2
    ;;
esac
[ "$repetitions" -le 100 ] ||
    { echo "run_oml: RUNS: '$repetitions' are more than 100, and seed 101 is one of the search" >&2; exit 2; }
for rate in "${rates[@]:-}"; do
    [[ "$rate" =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)(e-?[0-9]+)?$ ]] ||
        { echo "run_oml: RATES: '$rate' is no number" >&2; exit 2; }
done
seeds="$(seq -s " " "$repetitions")" grid=() made="$(mktemp)" # its lines: the folders of runs
trap 'rm -f "$made"' EXIT
for rate in "${rates[@]}"; do grid+=("$(LC_ALL=C printf '%g' "$rate")"); done
middle=$(( ${#grid[@]} > 3 ? (${#grid[@]} - 3) / 2 : 0 ))

main() {
    xargs -r -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --resume auto \
        ${DATA_ROOT:+--data_dir "$DATA_ROOT"} ${ARGS:-} "$@"
}
on_stream="--scenario class-il --class_order natural --classes COUNT --batch_size 1 --eval_mask none --eval_period -1"
on_stream+=" --eval_passes last --eval_train"
lines() { # of the rows with COUNT classes, each after its name
    local name options
    while read -r name options; do
        case "$options" in *"--n_tasks "*) ;; *) options+=" --n_tasks $1" ;; esac
        echo "$name $options ${on_stream/COUNT/$1}"
    done <<<"$rows"
}
try() { # NAME, OPTIONS, RATE: lists five runs to be made, and the row that waits for them
    todo+="$2 --lr $3 --results '$search/$1/$3'"$'\n' waiting+=" $1 "
}

most="$(printf '%s\n' "${counts[@]}" | sort -n | tail -n 1)" # too many are refused before the stages
main --model oml --dataset "$dataset" --rln none --n_tasks "$most" --dry_run <<<"${on_stream/COUNT/$most}" >/dev/null ||
    exit 2
sed -n 's/^stage //p' <<<"$given" | main --results "$results"
for count in "${counts[@]}"; do
    search="$results/search/$count" todo="" waiting="" chosen=""
    declare -A first=() last=() best=()  # of each row: the rates that were tried, by their places; the best of them
    while read -r name options; do
        first[$name]=$middle last[$name]=$((${#grid[@]} < 3 ? ${#grid[@]} - 1 : middle + 2))
        for rate in "${grid[@]:middle:3}"; do try "$name" "$options" "$rate"; done
    done <<<"$(lines "$count")"
    while [ -n "$todo" ]; do
        main --dataset "$dataset" --seeds 101 102 103 104 105 <<<"${todo%$'\n'}" | tee -a "$made"
        searched="$waiting" todo="" waiting=""
        while read -r name options; do
            [[ "$searched" == *" $name "* ]] || continue
            mapfile -t tried < <(grep -F -e "search/$count/$name/" "$made") # of this call: others may lie beside them
            rate="$("$VENV/bin/python" main.py choose "${tried[@]}" --option lr --by A_train --rule mode)"
            best[$name]="$(LC_ALL=C printf '%g' "$rate")"
            if [ "${best[$name]}" = "${grid[first[$name]]}" ] && [ "${first[$name]}" -gt 0 ]; then
                first[$name]=$((first[$name] - 1))
                try "$name" "$options" "${grid[first[$name]]}"
            elif [ "${best[$name]}" = "${grid[last[$name]]}" ] &&
                [ "${last[$name]}" -lt $((${#grid[@]} - 1)) ]; then
                last[$name]=$((last[$name] + 1))
                try "$name" "$options" "${grid[last[$name]]}"
            fi
        done <<<"$(lines "$count")"
    done
    while read -r name options; do
        chosen+="$options --lr ${best[$name]} --seeds $seeds"$'\n'
    done <<<"$(lines "$count")"
    RUNS="$results/$count" BASELINE='' REPORT=--interval bash command/compare.sh "$caller" "$dataset" "$out/$count" \
        ${words:+"--model"} <<<"${chosen%$'\n'}" || failed=1
done
exit "$failed"
