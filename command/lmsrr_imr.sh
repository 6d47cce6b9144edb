#!/usr/bin/env bash
# LMSRR and rivals on the same networks on split ImageNet-R: 10 tasks of 20 classes, 10 passes, 500 images in memory.
# Published average of LMSRR, the task told: 84.35 +- 0.52 (L2P: 86.01); three runs, on a split of its own of 24,000 and
# 6,000 images. The first network has seen the labels of ImageNet-1K.
#
#   bash command/lmsrr_imr.sh [options of main.py]
#
# Needs ImageNet-R (--download fetches its 2.0 GB) and a GPU. Cost: 0.2 hours a run on an H100, 5.4 for all 30, an
# estimate as in run_lmsrr.sh, which has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    seq-imr 10 --scenario class-il --class_order natural --n_epochs 10 "$@"
