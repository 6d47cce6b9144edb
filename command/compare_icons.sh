#!/usr/bin/env bash
# The comparison on seq-icons; the rows stand in compare_pictures.sh.
#
#   bash command/compare_icons.sh                      everything; table and figures go to results/icons/
#   bash command/compare_icons.sh "--host mvp"         only rows that contain these words; table to runs/compare/
exec bash "$(dirname "${BASH_SOURCE[0]}")/compare_pictures.sh" \
    "bash command/compare_icons.sh" seq-icons results/icons "$@"
