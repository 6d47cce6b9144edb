#!/usr/bin/env bash
# Posterior meta-replay and what it is compared with on Permuted MNIST in the published setting: ten domains, a head for
# each, MLP 1000-1000. Published, given and inferred by entropy, one seed: PR-BbB 96.21 and 96.14, PR-Dirac 96.73 and
# 94.15, SP-BbB 97.13 and 92.95, SP-Dirac 98.16 and 94.70, vcl 89.72 and 85.40, ewc_posterior 94.73 and 81.12.
#
#   bash command/posterior_perm_mnist.sh [options of main.py]
#   NETWORK=mlp-100-100 bash command/posterior_perm_mnist.sh [options of main.py]
#
# The latter: the lines for the small network, images without an edge. Published: PR-BbB 95.96 and 89.90, PR-Dirac 95.05
# and 75.84, SP-BbB 98.21 and 98.12, SP-Dirac 97.04 and 90.73.
# Needs MNIST (--download fetches its 12 MB) and, to end within a day, a GPU. Further settings: run_posterior.sh.
own=(--permutations henning)
if [ "${NETWORK:-}" = mlp-100-100 ]; then
    own+=(--padding 0 --backbone mlp-100-100)
    export RESULTS="${RESULTS:-runs/posterior_small}" ALL_ROWS="\
--model posterior_replay --posterior bbb --n_iter 5000 --lr 1e-4 --clip_grad_norm 1 --train_sample_size 1 \
--kl_scale 1e-3 --beta 50 --regularizer w2 --divide_twice --chmlp_chunk_size 2900 --hmlp_arch= --cond_emb_size 32 \
--chunk_emb_size 32 --use_cond_chunk_embs --std_normal_temb 0.1 --std_normal_emb 0.1
--model posterior_replay --posterior dirac --batch_size 128 --n_iter 5000 --lr 5e-4 --clip_grad_norm 1 --beta 250 \
--chmlp_chunk_size 750 --hmlp_arch 100,100 --cond_emb_size 32 --chunk_emb_size 16 --use_cond_chunk_embs \
--std_normal_emb 0.1
--model posterior_replay --posterior bbb --protection separate --n_iter 5000 --lr 1e-3 --clip_grad_norm 1 \
--train_sample_size 50 --kl_scale 0.1
--model posterior_replay --posterior dirac --protection separate --batch_size 64 --n_iter 2500 --lr 1e-3 \
--clip_grad_norm 1"
elif [ -n "${NETWORK:-}" ]; then
    echo "posterior_perm_mnist: NETWORK=$NETWORK: published are mlp-100-100 and, without NETWORK, mlp-1000-1000" >&2
    exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_posterior.sh" perm-mnist "${own[@]}" --n_tasks 10 --eval_period -1 \
    --eval_passes last "$@"
