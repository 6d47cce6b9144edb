#!/usr/bin/env bash
# ImageNet-R
#
#   bash command/seq_imr.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K, the setting of MISA, FlyGCL and MePo.
# Expected: MISA leads its replay-free rivals by up to 11.96 points (abstract of arXiv:2503.00677);
# MePo gains 13.36 points of A_auc here with Sup-21K/1K (abstract of arXiv:2602.07940). Add --backbone sup21k_1k for that.
# Cost: about 2.4 hours on one H100, 0.7 with --precision bf16, for the seven methods and five seeds; an estimate, see
# command/run.sh. `--dry_run` prints the FLOPs of each run.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-imr "$@"
