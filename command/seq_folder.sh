#!/usr/bin/env bash
# Your own images: DATA_ROOT is the folder that holds them
#
#   bash command/seq_folder.sh [METHOD ...] [options of main.py]
#
# Si-Blurry with 5 tasks, n = 50, m = 10, one pass, seeds 1 to 5, on the shipped small network unless --backbone says more.
# Expected: whatever your images give.
# Cost: `--dry_run` prints the FLOPs; hours were not measured. Further settings: see command/run.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" seq-folder "$@"
