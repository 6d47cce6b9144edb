#!/usr/bin/env bash
# BCL and its baselines on split CUB-200, 20 tasks of 10 classes, the task told. The authors' file was never released, and
# their network was an ImageNet ResNet-18: this is the nearest that can be had, a ResNet-18 from scratch on images of 84 px.
# lr 0.03 and 50 samples of memory per task are theirs.
#
#   bash command/bcl_cub200.sh [options of main.py]
#
# Needs CUB-200-2011 (--download fetches its 1.1 GB) and, to end within a day, a GPU. Further settings: run_bcl.sh.
export MEMORY="${MEMORY:-50}"
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_bcl.sh" seq-cub200 --scenario task-il --n_tasks 20 --first_task 3 \
    --backbone resnet18-64 --input_size 84 "$@"
