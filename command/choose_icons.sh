#!/usr/bin/env bash
# How the options for the network `vit_tiny_icons` were chosen: on seq-icons-dev, a stream of pretraining concepts whose
# test pictures come from sets that training never shows, seed 100, by A_auc. Seven settings of every method: five rates at
# one prompt length (ridge, trained part), two more elsewhere; MISA's two more are of its first stage, joint training has
# four in all. MePo takes the length of its host and has five rates, on a meta stage with the settings of `glyphs`; its
# settings on `icons` were chosen after that, by meta_gain.sh. The choice stands beside each method, in `published`.
#
#   bash command/choose_icons.sh [WORDS]      only lines that contain WORDS, e.g. "--model l2p"
#
# About 45 minutes on two CPU cores in bf16. JOBS runs at a time (default 2), one thread each.
# Table: runs/choose_icons/. A_auc over the rates, of each host with and without MePo: results/icons-dev/.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"
export OMP_NUM_THREADS=1
failed=0
rates="0.0005 0.0015 0.005 0.015 0.05"
stage=checkpoints/choose_icons/meta
refined=$stage/meta_epoch_1.safetensors
prompts=checkpoints/choose_icons/isa
main() { # FOLDER
    xargs -r -P "${JOBS:-2}" -L 1 "$VENV/bin/python" main.py --dataset seq-icons-dev --seed 100 --precision bf16 \
        --results "runs/choose_icons/$1" --resume auto || failed=1
}

# HOST | its options at the length that was chosen | at the published length
hosts() {
    cat <<'HOSTS'
l2p|--len_e_prompt 2|--len_e_prompt 5
dualprompt|--len_g_prompt 2 --len_e_prompt 4|--len_g_prompt 5 --len_e_prompt 20
coda|--len_e_prompt 4|--len_e_prompt 20
mvp|--len_g_prompt 2 --len_e_prompt 4|--len_g_prompt 5 --len_e_prompt 20
flyprompt|--rp_dim 1700 --len_prompt 4|--rp_dim 1700 --len_prompt 20
singleprompt|--prompt_length 4|--prompt_length 20
misa|--len_g_prompt 2 --len_e_prompt 4 --load_pt checkpoints/choose_icons/isa-lr0.001|
HOSTS
}
over_rates() {
    hosts | while IFS='|' read -r host short _; do
        for rate in $rates; do echo "--model $host $short --lr $rate"; done
        for rate in $rates; do echo "--model mepo --host $host $short --lr $rate --meta_path $refined"; done
    done
}
elsewhere() {
    hosts | while IFS='|' read -r host _ long; do
        for rate in 0.0015 0.005; do [ -z "$long" ] || echo "--model $host $long --lr $rate"; done
    done
    for rate in 0.0001 0.005; do
        echo "--model misa --len_g_prompt 2 --len_e_prompt 4 --lr 0.005 --load_pt $prompts-lr$rate"
    done
}
others() {
    for rate in $rates; do echo "--model er --trainable head --lr $rate"; done
    for rate in 0.0001 0.0005; do echo "--model er --trainable all --lr $rate"; done
    for rate in 0.00005 0.00015 0.0005 0.0015; do echo "--model finetune --lr $rate"; done
    for rate in 0.0005 0.0015 0.005; do echo "--model finetune --trainable head --lr $rate"; done
    for pair in "0.00005 0.005" "0.0005 0.005" "0.0005 0.05" "0.0015 0.05" "0.005 0.05" "0.0015 0.15" "0.005 0.5"; do
        echo "--model slca --lr ${pair% *} --lr_head ${pair#* }"
    done
    for rate in 0.0015 0.005 0.015; do echo "--model ranpac --rp_dim 1700 --lr $rate --rp_ridge 1000"; done
    for ridge in 100 100000; do echo "--model ranpac --rp_dim 1700 --lr 0.005 --rp_ridge $ridge"; done
    for rate in 0.0015 0.005; do echo "--model ranpac --rp_dim 1700 --lr $rate --ridge search"; done
    for pair in "5 0.005" "5 0.015" "10 0.0015" "10 0.005"; do
        echo "--model joint --host singleprompt --prompt_length 4 --updates ${pair% *} --lr ${pair#* }"
    done
}

words="${1:---model}"
rates_rows="$(over_rates | grep -F -e "$words" || true)" other_rows="$({ elsewhere; others; } | grep -F -e "$words" || true)"
[ -n "$rates_rows$other_rows" ] || { echo "choose_icons: no row has the words '$words'" >&2; exit 2; }
"$VENV/bin/python" main.py --model mepo_meta --dataset icons --backbone vit_tiny_icons --samples 20 --num_tasks 10 \
    --lr 0.001 --inner_lr 0.1 --save_to "$stage" --results runs/choose_icons --resume auto
printf '%s\n' 0.0001 0.001 0.005 | xargs -P "${JOBS:-2}" -I RATE "$VENV/bin/python" main.py --model misa_isa --dataset icons \
    --backbone vit_tiny_icons --len_g_prompt 2 --len_e_prompt 4 --lr RATE --save_to "$prompts-lrRATE" \
    --results runs/choose_icons --resume auto
main rates <<<"$rates_rows"
main others <<<"$other_rows"
"$VENV/bin/python" main.py report runs/choose_icons/*/seq-icons-dev --out runs/choose_icons
if [ -d runs/choose_icons/rates ]; then
    "$VENV/bin/python" main.py report runs/choose_icons/rates --over lr --out runs/choose_icons/rates
    [ $# -gt 0 ] || [ "$failed" = 1 ] || cp runs/choose_icons/rates/over-lr-* results/icons-dev # some lines only: the committed ones stay
fi
exit "$failed"
