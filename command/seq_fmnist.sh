#!/usr/bin/env bash
# Fashion-MNIST
#
#   bash command/seq_fmnist.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K; no published setting.
# Expected: none.
# Cost: about 7 hours on one H100, 2.0 with --precision bf16, for the seven methods and five seeds; an estimate, see
# command/run.sh. `--dry_run` prints the FLOPs of each run.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-fmnist "$@"
