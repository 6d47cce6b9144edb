#!/usr/bin/env bash
# WikiArt
#
#   bash command/seq_wikiart.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, ViT-B/16 Sup-21K; loader of MISA.
# Expected: no published number could be checked.
# Cost: about 9 hours on one H100, 2.7 with --precision bf16, for the seven methods and five seeds; an estimate, see
# command/run.sh. `--dry_run` prints the FLOPs of each run.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-wikiart "$@"
