#!/usr/bin/env bash
# Tiny ImageNet
#
#   bash command/seq_tinyimg.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K, the setting of MISA.
# Expected: MISA leads its replay-free rivals by up to 22.06 points (abstract of arXiv:2503.00677).
# Cost: about 11 hours on one H100, 3 with --precision bf16, for the seven methods and five seeds; an estimate, see
# command/run.sh. `--dry_run` prints the FLOPs of each run.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-tinyimg "$@"
