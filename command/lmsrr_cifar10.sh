#!/usr/bin/env bash
# LMSRR and rivals on the same networks on split CIFAR-10: 5 tasks of 2 classes, one pass, 500 images in memory
# (BUFFER=200 and 1000 are published, too). Published average of LMSRR, the task told: 98.85 +- 0.05 with 200 images,
# 99.15 +- 0.05 with 500, 99.21 +- 0.06 with 1000; three runs.
#
#   bash command/lmsrr_cifar10.sh [options of main.py]
#
# Needs CIFAR-10 (--download fetches its 163 MB) and a GPU. Cost: 0.04 hours a run on an H100, 1.3 for all 30, an
# estimate as in run_lmsrr.sh, which has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    seq-cifar10 5 --scenario class-il --class_order natural --n_epochs 1 --no-autoaugment "$@"
