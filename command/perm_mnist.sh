#!/usr/bin/env bash
# Permuted MNIST
#
#   bash command/perm_mnist.sh [METHOD ...] [options of main.py]
#
# Domain-incremental, 20 permutations (GEM), one pass, seeds 1 to 5, ViT-B/16 Sup-21K.
# Expected: none for these methods on a pretrained ViT.
# Cost: about 135 hours on one H100, 39 with --precision bf16, for the seven methods and five seeds; an estimate, see
# command/run.sh. `--dry_run` prints the FLOPs of each run.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" perm-mnist "$@"
