#!/usr/bin/env bash
# LMSRR and rivals on the same networks on split CIFAR-100: 10 tasks of 10 classes, one pass, 500 images in memory.
# Published average of LMSRR, the task told: 95.76 +- 0.08 (L2P: 95.36); three runs.
#
#   bash command/lmsrr_cifar100.sh [options of main.py]
#
# Needs CIFAR-100 (--download fetches its 161 MB) and a GPU. Cost: 0.05 hours a run on an H100, 1.5 for all 30, an
# estimate as in run_lmsrr.sh, which has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    seq-cifar100 10 --scenario class-il --class_order natural --n_epochs 1 "$@"
