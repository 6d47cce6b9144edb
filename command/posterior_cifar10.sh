#!/usr/bin/env bash
# Posterior meta-replay and what it is compared with on Split CIFAR-10 in the published setting: five tasks of two
# classes in their order, a ResNet-32, crops and flips. Published, given and inferred by entropy, one seed: PR-BbB 95.49
# and 62.16, PR-Dirac 93.77 and 54.74, SP-BbB 96.06 and 61.35, SP-Dirac 95.42 and 58.67, vcl 61.09 and 15.97,
# ewc_posterior 82.50 and 25.46. Pixels are normalised by CIFAR-10's statistics; the authors took ImageNet's.
#
#   bash command/posterior_cifar10.sh [options of main.py]
#
# Needs CIFAR-10 (--download fetches its 163 MB) and, to end within a day, a GPU. Further settings: run_posterior.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_posterior.sh" seq-cifar10 --scenario task-il --class_order natural \
    --n_tasks 5 --inputs published --no-autoaugment --eval_period -1 --eval_passes last "$@"
