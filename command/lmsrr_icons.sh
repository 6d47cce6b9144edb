#!/usr/bin/env bash
# LMSRR and its rivals on equal networks and equal memory: seq-icons and seq-glyphs, so that neither of the two networks
# is at home in both, class by class, 10 tasks of 20, one pass, batches of 32, 200 images in memory (A-GEM: 20 per task,
# which pass without augmentation), 10 seeds. Every row trains the last three blocks of each network and a classifier,
# which begins as the method's does, by plain SGD, in bf16 (in float32 with seeds alone in ARGS); classes not met yet are
# not masked, but for lwf, as in Mammoth; reservoirs fill image by image, as there. The last two rows have one of the two
# networks. Rates are the best of five on development streams (command/choose_lmsrr.sh).
#
#   bash command/lmsrr_icons.sh                   everything; tables go to results/lmsrr/icons/ and glyphs/
#   bash command/lmsrr_icons.sh "--model lmsrr"   only rows that contain these words; tables to runs/lmsrr/
#
# JOBS, ARGS, BASELINE (default: derpp on both networks), and what happens when it is called again: see compare.sh.
set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")"
pair="vit_tiny_glyphs+vit_tiny_icons" last="--trainable last --last_blocks 3"
plain="--optimizer plain --train_mask none --memory_size 200" exact="--exact_reservoir"
derpp=0.1 derpp_glyphs=0.03 derpp_icons=0.1
rows="--model lmsrr --buffer_size 200 --backbone $pair --lr 0.1
--model lmsrr --alpha 0 --buffer_size 200 --backbone $pair --lr 0.1
--model lmsrr --fusion none --buffer_size 200 --backbone $pair --lr 0.1
--model er $plain $exact $last --backbone $pair --lr 0.03
--model der $plain $exact $last --backbone $pair --lr 0.1
--model derpp $plain $exact $last --backbone $pair --lr $derpp
--model agem --n_memories 20 --replay_batch_size 32 --train_mask none --inputs published $last --backbone $pair --lr 0.1
--model fdr $plain $last --backbone $pair --lr 0.03
--model lwf $last --backbone $pair --lr 0.01
--model si --train_mask none $last --backbone $pair --lr 0.01
--model icarl $plain $last --backbone $pair --lr 3
--model finetune --optimizer sgd --train_mask none $last --backbone $pair --lr 0.01
--model derpp $plain $exact $last --backbone vit_tiny_glyphs --lr $derpp_glyphs
--model derpp $plain $exact $last --backbone vit_tiny_icons --lr $derpp_icons"

name=derpp # as the report calls it: by what was typed and differs
[ "$derpp $derpp" = "$derpp_glyphs $derpp_icons" ] || name+=" lr=$derpp"
name+=" backbone=$pair"
export RUNS="${RUNS:-runs/lmsrr}" BASELINE="${BASELINE-$name}"
export ARGS="${ARGS:---precision bf16 --seeds 1 2 3 4 5 6 7 8 9 10}"
[ $# -eq 0 ] || BASELINE="" # some rows only, the baseline perhaps not among them
for stream in icons glyphs; do
    sed 's/$/ --scenario class-il --n_tasks 10 --batch_size 32 --online_iter 1 --eval_period -1/' <<<"$rows" |
        bash "$here/compare.sh" "bash command/lmsrr_icons.sh" "seq-$stream" "results/lmsrr/$stream" "$@"
done
