#!/usr/bin/env bash
# LMSRR and rivals on the same networks on split Tiny ImageNet: 10 tasks of 20 classes, 10 passes, 500 images in memory
# (BUFFER=200 and 1000 are published, too). Published average of LMSRR, the task told: 92.08 +- 0.31 with 200 images,
# 92.75 +- 0.32 with 500, 93.24 +- 0.24 with 1000; three runs. The first network has seen the labels of ImageNet-1K.
#
#   bash command/lmsrr_tinyimg.sh [options of main.py]
#
# Needs Tiny ImageNet and a GPU. Cost: 0.7 hours a run on an H100, 22 for all 30, an estimate as in run_lmsrr.sh, which
# has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    seq-tinyimg 10 --scenario class-il --class_order natural --n_epochs 10 "$@"
