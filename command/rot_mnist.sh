#!/usr/bin/env bash
# Rotated MNIST
#
#   bash command/rot_mnist.sh [METHOD ...] [options of main.py]
#
# Domain-incremental, 20 rotations (GEM, DER), one pass, seeds 1 to 5, ViT-B/16 Sup-21K.
# Expected: none for these methods on a pretrained ViT.
# Cost: `--dry_run` prints the FLOPs; hours were not measured. Further settings: see command/run.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" rot-mnist "$@"
