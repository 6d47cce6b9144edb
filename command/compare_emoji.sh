#!/usr/bin/env bash
# The comparison on seq-emoji; the rows stand in compare_pictures.sh.
#
#   bash command/compare_emoji.sh                      everything; table and figures go to results/emoji/
#   bash command/compare_emoji.sh "--host mvp"         only rows that contain these words; table to runs/compare/
exec bash "$(dirname "${BASH_SOURCE[0]}")/compare_pictures.sh" \
    "bash command/compare_emoji.sh" seq-emoji results/emoji "$@"
