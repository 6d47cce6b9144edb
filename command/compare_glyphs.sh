#!/usr/bin/env bash
# The comparison: every method, with and without MePo where it applies, on seq-glyphs, Si-Blurry with n = 50, m = 10 and
# 5 tasks, 5 seeds. Faithful forms first; where the specification of a method has a corrected form, that one as well.
#
#   bash command/compare_glyphs.sh                      everything; table and figures go to results/glyphs/
#   bash command/compare_glyphs.sh "--model mvp"        only rows that contain these words; table to runs/compare/
#
# About 90 minutes on two CPU cores, estimated from its rows. JOBS rows at a time (default 2), one thread each, so that a
# row run again gives the same numbers. Called again it goes on with what is missing in runs/compare/. Further options of
# main.py can be given through ARGS, e.g. ARGS="--seeds 6 7 8".
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1

# The first two rows make the stages that later rows read.
grep -e "${1:---model}" <<'ROWS' | xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py \
    --dataset seq-glyphs --results runs/compare --resume auto ${ARGS:---seeds 1 2 3 4 5}
--model misa
--model mepo --host dualprompt
--model joint --host singleprompt
--model joint
--model finetune
--model er
--model er_ace
--model derpp
--model slca
--model ranpac
--model l2p
--model dualprompt
--model coda
--model mvp
--model flyprompt
--model singleprompt
--model mepo --host misa
--model mepo --host l2p
--model mepo --host coda
--model mepo --host mvp
--model mepo --host flyprompt
--model mepo --host singleprompt
--model coda --rebuild_optimiser
--model mvp --per_sample_focal
--model mepo --host mvp --align_when always
--model mepo --host misa --meta_path none
--model mepo --host mvp --meta_path none
--model mepo --host misa --align_form exact
--model mepo --host l2p --align_form exact
--model mepo --host dualprompt --align_form exact
--model mepo --host coda --align_form exact
--model mepo --host mvp --align_form exact
--model mepo --host flyprompt --align_form exact
--model mepo --host singleprompt --align_form exact
ROWS

if [ $# -gt 0 ]; then # some rows only: the committed table stays as it is
    exec "$VENV/bin/python" main.py report runs/compare/seq-glyphs --out runs/compare
fi
"$VENV/bin/python" main.py report runs/compare/seq-glyphs --baseline host --out results/glyphs
{
    echo "made by:  bash command/compare_glyphs.sh"
    echo "commit:   $(git rev-parse HEAD)"
    echo "machine:  $(nproc --all) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), one thread per run"
    "$VENV/bin/python" -c 'from utils.runs.identity import versions; print("versions:", versions())'
} >results/glyphs/made_by.txt
