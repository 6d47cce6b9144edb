#!/usr/bin/env bash
# Posterior meta-replay, separate networks, fine-tuning and prior-focused methods on scikit-learn's digits in five
# tasks of two, MLP 100-100, five seeds: stands for Split MNIST without a download, with the options published for that;
# fine-tuning has those of separate networks. The last row was added when the one before it was known to be at chance: a
# task has 287 images, the network fits them so well that their squared gradients say nothing of its weights, and models
# are drawn from little more than the prior. It draws none.
#
#   bash command/posterior_digits.sh                      everything; table and figures go to results/posterior/
#   bash command/posterior_digits.sh "--posterior bbb"    only rows that contain these words; table to runs/posterior/
#
# JOBS, ARGS, and what happens when it is called again: see compare.sh.
export RUNS=runs/posterior BASELINE= ARGS="${ARGS:---seeds 1 2 3 4 5}"
sed 's/$/ --scenario task-il --class_order natural --inputs plain --n_tasks 5 --backbone mlp-100-100 --eval_period -1/
s/$/ --eval_passes last/' <<'ROWS' |
--model posterior_replay --posterior bbb --batch_size 128 --n_iter 5000 --lr 1e-4 --kl_scale 1e-4 --beta 100 --regularizer w2 --divide_twice --hnet_type chunked_hmlp --chmlp_chunk_size 2500 --hmlp_arch= --cond_emb_size 32 --chunk_emb_size 32 --use_cond_chunk_embs --std_normal_temb 0.1 --std_normal_emb 0.1
--model posterior_replay --posterior dirac --batch_size 32 --n_iter 5000 --lr 5e-4 --beta 10 --hnet_type chunked_hmlp --chmlp_chunk_size 8000 --hmlp_arch 10,10,10,10 --cond_emb_size 32 --chunk_emb_size 32 --std_normal_emb 0.1
--model posterior_replay --posterior bbb --protection separate --batch_size 128 --n_iter 2000 --lr 1e-3 --train_sample_size 50 --kl_scale 0.01
--model posterior_replay --posterior dirac --protection separate --batch_size 128 --n_iter 5000 --lr 5e-4
--model posterior_replay --posterior bbb --protection none --batch_size 128 --n_iter 2000 --lr 1e-3 --train_sample_size 50 --kl_scale 0.01
--model posterior_replay --posterior dirac --protection none --batch_size 128 --n_iter 5000 --lr 5e-4
--model vcl --batch_size 128 --n_iter 2000 --lr 1e-4 --kl_scale 10 --keep_orig_init
--model ewc_posterior --batch_size 32 --n_iter 2001 --lr 5e-4 --ewc_lambda 10
--model ewc_posterior --batch_size 32 --n_iter 2001 --lr 5e-4 --ewc_lambda 10 --det_multi_head
ROWS
    bash "$(dirname "${BASH_SOURCE[0]}")/compare.sh" \
        "bash command/posterior_digits.sh" seq-digits results/posterior/seq-digits "$@"
