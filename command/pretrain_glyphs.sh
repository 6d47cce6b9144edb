#!/usr/bin/env bash
# Trains the shipped backbone vit_tiny_glyphs from scratch on the 1,000 glyph classes; see backbone/weights/vit_tiny_glyphs.md
# for the accuracy to expect. About 15 minutes on two CPU cores.
#
#   bash command/pretrain_glyphs.sh [options of main.py]
#
# The result is checkpoints/vit_tiny_glyphs.safetensors; use it with --backbone_path.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

exec "$VENV/bin/python" main.py --model supervised --dataset glyphs --backbone_path random \
    --save_to checkpoints/vit_tiny_glyphs.safetensors "$@"
