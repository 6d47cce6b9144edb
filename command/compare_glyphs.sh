#!/usr/bin/env bash
# The comparison: every method, with and without MePo where it applies, on seq-glyphs, Si-Blurry with n = 50, m = 10 and
# 5 tasks, 5 seeds. Faithful forms first; where the specification of a method has a corrected form, that one as well.
#
#   bash command/compare_glyphs.sh                      everything; table and figures go to results/glyphs/
#   bash command/compare_glyphs.sh "--model mvp"        only rows that contain these words; table to runs/compare/
#
# About 90 minutes on two CPU cores, estimated from its rows. JOBS, ARGS, and what happens when it is called again: see
# compare.sh.
# The first two rows make the stages that later rows read.
ARGS="${ARGS:---seeds 1 2 3 4 5}" exec bash "$(dirname "${BASH_SOURCE[0]}")/compare.sh" \
    "bash command/compare_glyphs.sh" seq-glyphs results/glyphs "$@" <<'ROWS'
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
