#!/usr/bin/env bash
# BCL and its baselines on split CIFAR-100 in the published setting: 20 tasks of 5 classes, of which the first three choose
# options and the other 17 are learnt, the task told, ResNet-18 of width 20 with a max pool, 65 samples of memory per task.
# BCL relabels the classes by one fixed permutation; here --seed draws their order.
#
#   bash command/bcl_cifar100.sh [options of main.py]
#
# Needs CIFAR-100 (--download fetches its 161 MB). Further settings: run_bcl.sh.
export MEMORY="${MEMORY:-65}"
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_bcl.sh" seq-cifar100 --scenario task-il --n_tasks 20 --first_task 3 \
    --backbone resnet18-20-pool "$@"
