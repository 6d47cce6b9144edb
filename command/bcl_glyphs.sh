#!/usr/bin/env bash
# BCL and its baselines on drawn characters: 20 tasks of 10 classes, the task told, a small ResNet-18 from scratch. No
# download. The first three tasks are for choosing options (--last_task 2); these runs learn the other 17.
#
#   bash command/bcl_glyphs.sh [options of main.py]
#
# Settings of BCL's split CIFAR-100, which is the nearest, 65 samples of memory per task; the baselines have their
# defaults, which nobody chose for these data. Further settings: run_bcl.sh.
export MEMORY="${MEMORY:-65}"
export BCL="${BCL:---lr 0.3 --beta 0.1 --inner_steps 2 --n_meta 1}"
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_bcl.sh" seq-glyphs --scenario task-il --n_tasks 20 --first_task 3 \
    --backbone resnet18-20-pool "$@"
