#!/usr/bin/env bash
# LMSRR and rivals on the same networks on split Stanford Cars: 14 tasks of 14 classes, 20 passes, 500 images in memory.
# Published average of LMSRR, the task told: 90.14 +- 0.06 (L2P: 79.55); three runs.
#
#   bash command/lmsrr_cars196.sh [options of main.py]
#
# Needs Stanford Cars, which is no longer served, and a GPU. Cost: 0.2 hours a run on an H100, 5.8 for all 30, an
# estimate as in run_lmsrr.sh, which has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    seq-cars196 14 --scenario class-il --class_order natural --n_epochs 20 "$@"
