#!/usr/bin/env bash
# BCL and its baselines on permuted MNIST in the published setting: MLP of 3 x 128, 256 samples of memory per task, lr 0.03
# for BCL. 20 permutations as in GEM; BCL's builder makes 30 (--n_tasks 30).
#
#   bash command/bcl_perm_mnist.sh [options of main.py]
#
# Needs MNIST (--download fetches its 12 MB). Further settings: run_bcl.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_bcl.sh" perm-mnist --backbone mlp-128-128-128 "$@"
