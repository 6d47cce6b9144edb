#!/usr/bin/env bash
# CUB-200-2011
#
#   bash command/seq_cub200.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K, the setting of FlyGCL and MePo.
# Expected: MePo gains 12.56 points of A_auc here with Sup-21K/1K (abstract of arXiv:2602.07940).
# Add --backbone sup21k_1k for that.
# Cost: about 0.8 hours on one H100, 0.2 with --precision bf16, for the seven methods and five seeds; an estimate, see
# command/run.sh. `--dry_run` prints the FLOPs of each run.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-cub200 "$@"
