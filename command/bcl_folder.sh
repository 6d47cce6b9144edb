#!/usr/bin/env bash
# BCL and its baselines on a folder of your own with a folder per class, as a tree of miniImageNet: 20 tasks, the task told,
# a small ResNet-18 from scratch on images of 84 px. The authors' miniImageNet file was never released.
#
#   DATA_ROOT=my_pictures bash command/bcl_folder.sh [options of main.py]
#
# Settings of BCL's split miniImageNet, 65 samples of memory per task. Further settings: run_bcl.sh.
export MEMORY="${MEMORY:-65}"
export BCL="${BCL:---lr 0.05 --beta 0.1 --inner_steps 2 --n_meta 1}"
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_bcl.sh" seq-folder --scenario task-il --n_tasks 20 --first_task 3 \
    --backbone resnet18-20-pool --input_size 84 "$@"
