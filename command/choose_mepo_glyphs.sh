#!/usr/bin/env bash
# How the settings of MePo's stages on the shipped network were chosen: meta stages at several rates, judged by what two
# hosts then reach on seq-glyphs-dev, a stream of pretraining classes. The choice stands in models/mepo_meta.py.
#
#   bash command/choose_mepo_glyphs.sh
#
# About 25 minutes on two CPU cores. JOBS runs at a time (default 2), one thread each. Table: runs/choose_mepo/table.md.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
products=checkpoints/choose_mepo

xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --model mepo_meta --dataset glyphs --results runs/choose_mepo <<RUNS
--lr 0.0001 --inner_lr 0.1 --save_to $products/lr1e-4-alpha0.1
--lr 0.001 --inner_lr 0.1 --save_to $products/lr1e-3-alpha0.1
--lr 0.001 --inner_lr 0.5 --save_to $products/lr1e-3-alpha0.5
--lr 0.003 --inner_lr 0.3 --save_to $products/lr3e-3-alpha0.3
RUNS
for meta in "$products"/*; do
    for host in dualprompt singleprompt; do
        echo "--host $host --meta_path $meta/meta_epoch_1.safetensors --cor_path none"
        echo "--host $host --meta_path $meta/meta_epoch_1.safetensors"
    done
done | xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --model mepo --dataset seq-glyphs-dev --seeds 100 101 \
    --results runs/choose_mepo
for host in dualprompt singleprompt; do
    "$VENV/bin/python" main.py --model "$host" --dataset seq-glyphs-dev --seeds 100 101 --results runs/choose_mepo
done
"$VENV/bin/python" -m utils.report runs/choose_mepo/seq-glyphs-dev --out runs/choose_mepo
