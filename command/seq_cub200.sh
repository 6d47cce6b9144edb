#!/usr/bin/env bash
# CUB-200-2011
#
#   bash command/seq_cub200.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K, the setting of FlyGCL and MePo.
# Expected: MePo gains 12.56 points of A_auc here with Sup-21K/1K (abstract of arXiv:2602.07940).
# Add --backbone sup21k_1k for that.
# Cost: `--dry_run` prints the FLOPs; hours were not measured. Further settings: see command/run.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-cub200 "$@"
