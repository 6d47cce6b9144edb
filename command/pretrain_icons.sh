#!/usr/bin/env bash
# Trains the shipped backbone vit_tiny_icons from scratch on the 1,000 concepts of `icons`; see
# backbone/weights/vit_tiny_icons.md for the accuracy to expect. Four minutes on an H200; about an hour on two
# CPU cores, an estimate by the rate of pretrain_glyphs.sh.
#
#   bash command/pretrain_icons.sh [options of main.py]
#
# The result is checkpoints/vit_tiny_icons.safetensors; use it with --backbone_path.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

exec "$VENV/bin/python" main.py --model supervised --dataset icons --backbone vit_tiny_icons --backbone_path random \
    --save_to checkpoints/vit_tiny_icons.safetensors "$@"
