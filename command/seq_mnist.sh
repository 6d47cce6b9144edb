#!/usr/bin/env bash
# MNIST
#
#   bash command/seq_mnist.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K; no published setting.
# Expected: none.
# Cost: `--dry_run` prints the FLOPs; hours were not measured. Further settings: see command/run.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-mnist "$@"
