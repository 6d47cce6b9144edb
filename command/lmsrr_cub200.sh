#!/usr/bin/env bash
# LMSRR and rivals on the same networks on split CUB-200: 10 tasks of 20 classes, 20 passes, 500 images in memory.
# Published average of LMSRR, the task told: 88.91 +- 0.64 (L2P: 86.30); three runs.
#
#   bash command/lmsrr_cub200.sh [options of main.py]
#
# Needs CUB-200-2011 (--download fetches its 1.1 GB) and a GPU. Cost: 0.1 hours a run on an H100, 4.2 for all 30, an
# estimate as in run_lmsrr.sh, which has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    seq-cub200 10 --scenario class-il --class_order natural --n_epochs 20 "$@"
