#!/usr/bin/env bash
# What moves the gain of MePo's meta stage, and what the stage does to the features. Three networks: `vit_tiny_icons`, which
# was trained on all classes that the stage refines it on; `half`, trained on the first 500 concepts for 40 epochs (so also
# a weak one) and refined on the other 500; and `vit_tiny_glyphs`, trained on characters. Each is refined with smaller
# and larger steps, fewer and more classes in a pseudo task; `plain` is supervised training on the stage's own pictures.
#
#   bash command/meta_gain.sh
#
# 1. Nearest class means on seq-icons and seq-emoji, with what the features look like: runs/meta_gain/features.csv.
# 2. On the development stream, MePo on DualPrompt and SinglePrompt with four of the stages on `vit_tiny_icons`: the
#    choice in models/mepo_meta.py.
# 3. On seq-icons, three seeds, DualPrompt with and without stage and alignment on `half`, and on a stream of 20 tasks.
#
# About 100 minutes on two CPU cores in bf16, estimated from its parts. JOBS runs at a time (default 2), one thread each.
# Called again it goes on where it stopped. Tables: runs/meta_gain/.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
made=checkpoints/meta_gain
main() {
    xargs -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --plugins results/icons/halves --precision bf16 \
        --results runs/meta_gain --resume auto
}
networks() { # file and shape of each
    echo "backbone/weights/vit_tiny_icons.safetensors vit_tiny_icons"
    echo "backbone/weights/vit_tiny_glyphs.safetensors vit_tiny_glyphs"
    echo "$made/half.safetensors vit_tiny_icons"
    for file in "$made"/*/meta_epoch_[1-9]*.safetensors "$made"/*-plain.safetensors; do
        case "$file" in */glyphs*) shape=vit_tiny_glyphs ;; *) shape=vit_tiny_icons ;; esac
        echo "$file $shape"
    done
}

half="--backbone vit_tiny_icons --dataset"
main <<<"--model supervised $half icons-first --backbone_path random --n_epochs 40 --save_to $made/half.safetensors"
main <<RUNS
--model mepo_meta --backbone vit_tiny_icons --dataset icons --samples 20 --num_tasks 10 --lr 0.001 --inner_lr 0.1 --save_to $made/icons-t10-lr1e-3-a0.1
--model mepo_meta --backbone vit_tiny_icons --dataset icons --samples 20 --num_tasks 10 --lr 0.001 --inner_lr 0.5 --save_to $made/icons-t10-lr1e-3-a0.5
--model mepo_meta --backbone vit_tiny_icons --dataset icons --samples 20 --num_tasks 10 --lr 0.01 --inner_lr 0.5 --save_to $made/icons-t10-lr1e-2-a0.5
--model mepo_meta --backbone vit_tiny_icons --dataset icons --samples 20 --num_tasks 50 --lr 0.001 --inner_lr 0.5 --save_to $made/icons-t50-lr1e-3-a0.5
--model mepo_meta --backbone vit_tiny_icons --dataset icons --samples 20 --num_tasks 2 --lr 0.001 --inner_lr 0.5 --save_to $made/icons-t2-lr1e-3-a0.5
--model mepo_meta --backbone vit_tiny_icons --dataset icons --samples 10 --num_tasks 10 --lr 0.001 --inner_lr 0.5 --save_to $made/icons-t10-s10-lr1e-3-a0.5
--model mepo_meta --backbone vit_tiny_glyphs --dataset icons --samples 20 --num_tasks 10 --lr 0.001 --inner_lr 0.5 --save_to $made/glyphs-t10-lr1e-3-a0.5
--model supervised --backbone vit_tiny_glyphs --dataset icons --backbone_path backbone/weights/vit_tiny_glyphs.safetensors --n_epochs 2 --lr 0.001 --save_to $made/glyphs-plain.safetensors
--model mepo_meta $half icons-last --backbone_path $made/half.safetensors --samples 20 --meta_epochs 1 --num_tasks 10 --lr 0.001 --inner_lr 0.5 --save_to $made/half-t10-lr1e-3-a0.5
--model mepo_meta $half icons-last --backbone_path $made/half.safetensors --samples 20 --meta_epochs 2 --num_tasks 10 --lr 0.003 --inner_lr 1 --save_to $made/half-t10-lr3e-3-a1
--model supervised $half icons-last --backbone_path $made/half.safetensors --n_epochs 2 --lr 0.001 --save_to $made/half-plain.safetensors
RUNS

networks | while read -r file shape; do
    for stream in seq-icons seq-emoji; do
        echo "--model ncm --dataset $stream --backbone $shape --backbone_path $file"
    done
done | main

develop="--dataset seq-icons-dev --seed 100 --model mepo --host"
for stage in icons-t10-lr1e-3-a0.1 icons-t10-lr1e-3-a0.5 icons-t2-lr1e-3-a0.5 icons-t10-s10-lr1e-3-a0.5; do
    refined="--meta_path $made/$stage/meta_epoch_1.safetensors"
    echo "$develop dualprompt $refined --lr 0.005"
    echo "$develop dualprompt $refined --lr 0.015"
    echo "$develop dualprompt $refined --lr 0.005 --cor_path none"
    echo "$develop singleprompt $refined --lr 0.015 --cor_path none"
done | main

seeds="--dataset seq-icons --seeds 1 2 3"
{
    weak="$seeds --backbone vit_tiny_icons --backbone_path $made/half.safetensors"
    own="--pretrain icons-last"
    echo "$weak --model dualprompt"
    echo "$weak $own --model mepo --host dualprompt --lr 0.005 --meta_path none"
    for stage in half-t10-lr1e-3-a0.5/meta_epoch_1 half-t10-lr3e-3-a1/meta_epoch_2; do
        echo "$weak --model mepo --host dualprompt --lr 0.005 --meta_path $made/$stage.safetensors --cor_path none"
        echo "$weak $own --model mepo --host dualprompt --lr 0.005 --meta_path $made/$stage.safetensors"
    done
    long="$seeds --n_tasks 20"
    echo "$long --model dualprompt"
    echo "$long --model mepo --host dualprompt"
    echo "$long --model mepo --host dualprompt --meta_path none"
    echo "$long --model mepo --host dualprompt --cor_path none --lr 0.005"
} | main
"$VENV/bin/python" main.py report runs/meta_gain --out runs/meta_gain
"$VENV/bin/python" - >runs/meta_gain/features.csv <<'FEATURES' # the report knows networks by their digests alone
from pathlib import Path
from utils.runs.reading import read_run

print("network,dataset,A_last,between,cosine,rank")
for folder in sorted(Path("runs/meta_gain").glob("seq-*/ncm/*/")):
    run = read_run(folder)
    if run.summary:
        own = ",".join(f"{run.summary.own[name]:.4f}" for name in ("between", "cosine", "rank"))
        print(f"{run.config['run']['backbone_path']},{run.summary.dataset},{run.summary.measures['A_last']:.4f},{own}")
FEATURES
