#!/usr/bin/env bash
# Runs LMSRR on a dataset in its published setting, and rivals on the same two ViT-B/16, as in its Fig. 2a: features
# side by side, a linear classifier, the last three blocks of each network trained. The files lmsrr_*.sh call it, but
# lmsrr_icons.sh. Images are augmented as the project's datasets are, with AutoAugment where they have a policy, but for
# A-GEM's memory, which passes as it is. Every row has plain SGD at LMSRR's rate, 0.03, batches of 32 and the same memory;
# for the rivals no rates are published. Classifiers begin as each method's do. Classes not met yet are not masked, but
# for lwf, as in Mammoth. The published average is the mean accuracy over tasks at the end with the task told,
# `task_final`.
#
#   bash command/run_lmsrr.sh DATASET TASKS [options of main.py]
#
# DATA_ROOT  --data_dir (default: data)               CKPT_ROOT  --checkpoint_dir (default: checkpoints)
# RESULTS    --results (default: runs/lmsrr/BUFFER)   SEEDS      default: 1 2 3
# BUFFER     images in memory (default: 500)          ROWS       only rows that contain these words, e.g. "--model lmsrr"
#
# Called again it goes on with the runs that are not complete. Ends with the table, and with the differences to derpp.
# The hours that those files name are the FLOPs of `--dry_run` at the rate of run.sh, in float32; that count takes every
# weight as trained and leaves replay out.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"
cd "$repo"

dataset="${1:?give a dataset}" tasks="${2:?give a number of tasks}"
shift 2
buffer="${BUFFER:-500}" failed=0
results="${RESULTS:-runs/lmsrr/$buffer}"
rival="--lr 0.03 --trainable last --last_blocks 3"
plain="$rival --optimizer plain --train_mask none --memory_size $buffer"
exact="--exact_reservoir" unmasked="--train_mask none"
[ "$dataset" != rot-mnist ] || unmasked="" # its tasks share their classes
rows=("--model lmsrr --buffer_size $buffer" "--model er $plain $exact" "--model der $plain $exact"
    "--model derpp $plain $exact" "--model fdr $plain"
    "--model agem $rival --n_memories $((buffer / tasks)) --replay_batch_size 32 --inputs published $unmasked"
    "--model si $rival --train_mask none" "--model finetune $rival --optimizer sgd --train_mask none")
# These need classes of each task's own.
[ "$dataset" = rot-mnist ] ||
    rows+=("--model lwf $rival --alpha 0.5 --optim_wd 0" "--model icarl $plain")
for words in "${rows[@]}"; do
    [[ "$words" == *"${ROWS:-}"* ]] || continue
    # shellcheck disable=SC2086  # words and SEEDS are lists; a run whose loss is not finite ends with 1
    "$VENV/bin/python" main.py $words --dataset "$dataset" --n_tasks "$tasks" --backbone orig21k_1k+sup21k \
        --batch_size 32 --online_iter 1 --eval_period -1 --eval_passes last --seeds ${SEEDS:-1 2 3} --resume auto \
        --data_dir "${DATA_ROOT:-data}" --checkpoint_dir "${CKPT_ROOT:-checkpoints}" --results "$results" "$@" ||
        { failed=$?; [ $failed = 1 ] || exit $failed; }
done
case " $* " in *" --dry_run "*) exit 0 ;; esac
baseline=()
[ -n "${ROWS:-}" ] || baseline=(--baseline derpp)
"$VENV/bin/python" main.py report "$results/$dataset" ${baseline[@]+"${baseline[@]}"}
exit "$failed"
