#!/usr/bin/env bash
# Runs the rows of a comparison and reports them; the files compare_*.sh call it. A row is the options of a run, a line.
#
#   bash command/compare.sh CALLER DATASET OUT [WORDS] <ROWS
#
# CALLER  the command that made it, for OUT/made_by.txt
# OUT     the folder for table and figures; with WORDS, only rows that contain these, to RUNS/DATASET/
# DATA_ROOT  --data_dir (default: data)
# JOBS    rows at a time (default 2), one thread each, so that a row run again gives the same numbers
# ARGS    further options of main.py, e.g. ARGS="--seeds 6 7 8"
# RUNS    --results (default: runs/compare)
# BASELINE  the row that others are compared with (default: host); empty: none
# REPORT  further options of the report, e.g. --interval
#
# Called again it goes on with what is missing in RUNS/; of other runs that lie there none is reported.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
caller="$1" dataset="$2" out="$3"
shift 3
runs="${RUNS:-runs/compare}" failed=0
made="$(mktemp)" # what main.py prints: the folders of the runs
trap 'rm -f "$made"' EXIT

rows="$(grep -F -e "${1:---model}")" || { echo "compare: no row has the words '$1'" >&2; exit 2; }
xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --dataset "$dataset" --results "$runs" --resume auto \
    ${DATA_ROOT:+--data_dir "$DATA_ROOT"} ${ARGS:-} <<<"$rows" | tee "$made" || failed=1

case " ${ARGS:-} " in *" --dry_run "*) exit "$failed" ;; esac
[ $# -gt 0 ] || [ "$failed" = 0 ] ||
    { echo "compare: not every row has ended, see above; $out stays as it is" >&2; exit 1; }
report=()
while IFS= read -r folder; do report+=("$folder"); done <"$made"
[ ${#report[@]} -gt 0 ] || exit "$failed"
# shellcheck disable=SC2206  # REPORT is a list
report+=(${REPORT:-})
[ -z "${BASELINE-host}" ] || report+=(--baseline "${BASELINE-host}")
[ $# = 0 ] || out="$runs/$dataset" # some rows only: the committed table stays as it is
"$VENV/bin/python" main.py report "${report[@]}" --out "$out"
[ $# = 0 ] || exit "$failed"
{
    echo "made by:  ${ARGS:+ARGS=\"$ARGS\" }$caller"
    echo "commit:   $(git rev-parse HEAD)"
    echo "machine:  $(nproc --all) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), one thread per run"
    "$VENV/bin/python" -c 'from utils.runs.identity import versions; print("versions:", versions())'
} >"$out/made_by.txt"
