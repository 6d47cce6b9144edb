#!/usr/bin/env bash
# How the settings of MePo's meta stage and of MISA's first stage on the shipped network were chosen: each stage at
# several settings, judged by what a host then reaches on seq-glyphs-dev, a stream of pretraining classes, two seeds: at
# rate 0.001 without MePo's alignment and 0.005 with it, DualPrompt's choice on seq-glyphs. The choice stands in
# models/mepo_meta.py and models/misa_isa.py.
#
#   bash command/choose_stages_glyphs.sh
#
# About 20 minutes on two CPU cores, estimated from its parts. JOBS runs at a time (default 2), one thread each. Table: runs/choose_stages/table.md.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
products=checkpoints/choose_stages
stream="--dataset seq-glyphs-dev --seeds 100 101 --len_g_prompt 2 --len_e_prompt 4"

main() { xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --results runs/choose_stages; }

main <<RUNS
--dataset glyphs --model misa_isa --len_g_prompt 2 --len_e_prompt 4 --lr 0.0001 --save_to $products/isa-lr1e-4
--dataset glyphs --model misa_isa --len_g_prompt 2 --len_e_prompt 4 --lr 0.001 --save_to $products/isa-lr1e-3
--dataset glyphs --model misa_isa --len_g_prompt 2 --len_e_prompt 4 --lr 0.005 --save_to $products/isa-lr5e-3
--dataset glyphs --model mepo_meta --num_tasks 50 --lr 0.0001 --inner_lr 0.1 --save_to $products/meta-tasks50-lr1e-4-alpha0.1
--dataset glyphs --model mepo_meta --num_tasks 50 --lr 0.001 --inner_lr 0.1 --save_to $products/meta-tasks50-lr1e-3-alpha0.1
--dataset glyphs --model mepo_meta --num_tasks 50 --lr 0.001 --inner_lr 0.5 --save_to $products/meta-tasks50-lr1e-3-alpha0.5
--dataset glyphs --model mepo_meta --num_tasks 10 --lr 0.001 --inner_lr 0.1 --save_to $products/meta-tasks10-lr1e-3-alpha0.1
--dataset glyphs --model mepo_meta --num_tasks 10 --lr 0.001 --inner_lr 0.5 --save_to $products/meta-tasks10-lr1e-3-alpha0.5
--dataset glyphs --model mepo_meta --num_tasks 5 --lr 0.001 --inner_lr 0.1 --save_to $products/meta-tasks5-lr1e-3-alpha0.1
RUNS
{
    echo "$stream --model dualprompt --lr 0.001"
    echo "$stream --model mepo --host dualprompt --meta_path none --lr 0.005"
    for prompts in none "$products"/isa-*; do
        echo "$stream --model misa --lr 0.001 --load_pt $prompts"
    done
    for meta in "$products"/meta-*; do
        echo "$stream --model mepo --host dualprompt --meta_path $meta/meta_epoch_1.safetensors --lr 0.001 --cor_path none"
        echo "$stream --model mepo --host dualprompt --meta_path $meta/meta_epoch_1.safetensors --lr 0.005"
    done
} | main
"$VENV/bin/python" main.py report runs/choose_stages/seq-glyphs-dev --out runs/choose_stages
