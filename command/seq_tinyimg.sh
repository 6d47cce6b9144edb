#!/usr/bin/env bash
# Tiny ImageNet
#
#   bash command/seq_tinyimg.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K, the setting of MISA.
# Expected: MISA leads its replay-free rivals by up to 22.06 points (abstract of arXiv:2503.00677).
# Cost: `--dry_run` prints the FLOPs; hours were not measured. Further settings: see command/run.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-tinyimg "$@"
