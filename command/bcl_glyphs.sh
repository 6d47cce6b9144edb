#!/usr/bin/env bash
# BCL and its baselines on drawn characters: 20 tasks of 10 classes, the task told, a small ResNet-18 from scratch. No
# download. The first three tasks are for choosing options (--last_task 2); these runs learn the other 17.
#
#   bash command/bcl_glyphs.sh [options of main.py]
#
# Settings of BCL's split CIFAR-100, which is the nearest: 65 samples of memory per task. Further settings: run_bcl.sh.
MEMORY="${MEMORY:-65}" exec bash "$(dirname "${BASH_SOURCE[0]}")/run_bcl.sh" seq-glyphs --scenario task-il --n_tasks 20 --first_task 3 \
    --backbone resnet18-20-pool "$@"
