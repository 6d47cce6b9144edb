"""Defaults and published values of every method, against the papers and the released code, and where they say they come
from.

The numbers below were read in the released code of FlyGCL (AnAppleCore/FlyGCL 79a6b51), MISA (kangzhiq/MISA 3308d67),
MePo (SunGL001/MePo 55912a4), Si-Blurry (moonjunyyy/Si-Blurry c4024ce), SinglePrompt (665a98c), Mammoth (e75a491) and
PILOT (2647455); what is `ours` was chosen here. Numbers of optimisers that are no options: test_released_numbers.py.
"""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch

import models.mepo
import models.ranpac
import models.singleprompt
import models.slca
import utils.training.metrics
from backbone.heads import RIDGES
from tests.tiny import build
from utils import plan as plans
from utils.args import RunArgs, option_names
from utils.optim import FAM
from utils.registry import DATASETS, METHODS
from utils.streams.adaptation import Adaptation
from utils.streams.episodes import Episodes

# DualPrompt in all three releases; the G-prompt's length and everything about steps is FlyGCL's.
DUALPROMPT = {
    "lr": 0.005,
    "len_g_prompt": 5,
    "len_e_prompt": 20,
    "pos_g_prompt": (0, 1),
    "pos_e_prompt": (2, 3, 4),
    "e_pool": 10,
    "prompt_func": "prompt_tuning",
    "lambd": 1.0,
    "step_num": 5,  # number of tasks
    "step_schedule": "samples",
    "prompt_index": "global",
    "train_mask": "batch",
}
FEATURES = {"trainable": "all", "last_blocks": 3}  # ours; LMSRR, Fig. 2a
# Si-Blurry's ER scripts, memory 2000 on all three datasets; MISA's scripts of ER-ACE and DER++ on CIFAR-100, too.
ER = {
    "lr": 0.005,
    "trainable": "head",
    "last_blocks": 3,
    "memory_size": 2000,
    "replay_size": 32,  # half of 64
    "optimizer": "adam",
    "exact_reservoir": False,
    "train_mask": "seen",
}
PLAIN_SGD = {"trainable": "all", "last_blocks": 3, "optimizer": "sgd", "train_mask": "seen"}
PRETRAIN = {"pretrain": None, "pretrain_dir": None}  # ours
# Parser of BCL, but lr, n_meta, n_memories, memory_strength and temperature: its run on permuted MNIST.
FTML = FEATURES | {
    "lr": 0.03,
    "beta": 0.3,
    "inner_steps": 1,
    "n_meta": 2,
    "n_memories": 256,
    "adapt": False,
    "adapt_lr": 0.1,
}
# Parser of posterior meta-replay
POSTERIOR = {
    "heads": "split",
    "lr": 1e-3,
    "optimizer": "adam",
    "clip_grad_norm": None,
    "clip_grad_value": None,
    "prior_variance": 1.0,
    "ll_dist_std": 0.05,
    "val_sample_size": 10,
}
GAUSSIAN = {
    "kl_scale": 1.0,
    "kl_schedule": 0,
    "use_logvar_enc": False,
    "train_sample_size": 10,
    "local_reparam_trick": False,
    "keep_orig_init": False,
}
DEFAULTS = {
    "coda": {  # FlyGCL and MePo
        "lr": 0.005,
        "e_pool": 10,
        "len_e_prompt": 20,
        "pos_e_prompt": (0, 1, 2, 3, 4),
        "ortho_mu": 0.0,
        "rebuild_optimiser": False,
        "train_mask": "batch",
    },
    "derpp": ER | {"alpha": 0.1, "beta": 0.5},  # Mammoth's best_args.py, seq-cifar100, 500 and 2000
    "der": ER | {"alpha": 0.3},  # Mammoth's best_args.py, as the next four: seq-cifar10, 500
    "fdr": {name: value for name, value in ER.items() if name != "exact_reservoir"} | {"alpha": 1.0},
    "icarl": {name: value for name, value in ER.items() if name != "exact_reservoir"} | {"opt_wd": 1e-5},
    "lwf": PLAIN_SGD | {"lr": 0.01, "alpha": 0.5, "softmax_temp": 2.0, "optim_wd": 0.0},
    "si": PLAIN_SGD | {"lr": 0.03, "c": 0.5, "xi": 1.0},
    "dualprompt": DUALPROMPT,
    "er": ER,
    "er_ace": ER,
    "finetune": FEATURES | {"lr": 1e-4, "optimizer": "adam", "train_mask": "seen"},  # ours
    "agem": FEATURES | {"lr": 0.1, "n_memories": 256, "train_mask": "seen", "replay_batch_size": 256},  # GEM; A-GEM
    "bcl": FTML
    | {
        "form": "dual",
        "memory_strength": 100.0,
        "temperature": 5.0,
        "replay_batch_size": 128,
        "val_ratio": 0.2,
        "clear_grad": False,
        "released_exclusion": True,
    },
    "er_ring": FEATURES | {"lr": 0.03, "inner_steps": 1, "n_memories": 256, "replay_batch_size": 128},
    "ewc": FEATURES | {"lr": 0.1, "n_memories": 10, "memory_strength": 3.0},  # GEM, permuted MNIST
    "ftml": FTML,
    "lmsrr": {  # its runs, which differ in alpha; its parser and its code
        "lr": 0.03,
        "alpha": 0.3,
        "beta": 0.2,
        "buffer_size": 500,
        "minibatch_size": 32,
        "trainable_blocks": 3,
        "tau": 0.1,
        "aro": "mean",
        "fusion": "both",
        "replay": "logits",
    },
    "posterior_replay": POSTERIOR
    | GAUSSIAN
    | {  # network and embeddings: that of the 2D modes
        "posterior": "bbb",
        "protection": "replay",
        "beta": 0.01,
        "regularizer": "mse",
        "divide_twice": False,
        "hnet_reg_batch_size": None,
        "hnet_type": "hmlp",
        "hmlp_arch": "10,10",
        "hnet_net_act": "relu",
        "cond_emb_size": 2,
        "chmlp_chunk_size": 1500,
        "chunk_emb_size": 2,
        "use_cond_chunk_embs": False,
        "std_normal_temb": 1.0,
        "std_normal_emb": 1.0,
        "hyper_gauss_init": False,
        "init_with_prev_emb": False,
    },
    "vcl": POSTERIOR | GAUSSIAN,
    "ewc_posterior": POSTERIOR | {"ewc_lambda": 1.0, "n_fisher": None, "det_multi_head": False},
    "gem": FEATURES | {"lr": 0.1, "n_memories": 256, "margin": 0.5, "train_mask": "seen"},
    "flyprompt": {  # FlyGCL
        "lr": 0.005,
        "len_prompt": 20,
        "pos_prompt": (0, 1, 2, 3, 4),
        "step_num": 5,  # number of tasks
        "rp_dim": 10_000,
        "rp_ridge": 1e4,
        "ema_ratio": (0.9, 0.99),
        "ensemble_method": "softmax_max_prob",
        "route_to_known": False,
        "train_mask": "batch",
    },
    "joint": {"host": "finetune", "updates": 5, "joint_batch": 64},  # ours
    "l2p": {  # FlyGCL
        "lr": 0.005,
        "e_pool": 30,
        "selection_size": 5,
        "len_e_prompt": 5,
        "lambd": 0.5,
        "diversity": True,
        "batchwise": False,
        "frequency_update": "never",
        "train_mask": "batch",
    },
    "mepo": PRETRAIN
    | {
        "host": "misa",
        "meta_path": None,
        "cor_path": None,
        "cor_coef": 0.7,  # FlyGCL
        "align_form": "released",
        "align_stats": "batch",
        "align_when": "always",
        "momentum": 0.1,  # ours
    },
    "mepo_cov": {"samples": 200, "save_to": None},  # MePo's notebook
    "mepo_meta": {  # MePo's scripts, not its parser (1e-4, 10, 4, 10); epoch 5 is the one used with Sup-21K
        "meta_epochs": 5,
        "group_size": 100,
        "num_tasks": 50,
        "samples": 200,
        "num_inner_steps": 1,
        "inner_lr": 0.1,
        "lr": 1e-4,
        "lr_head": 0.01,
        "save_to": None,
    },
    "misa": DUALPROMPT | PRETRAIN | {"len_g_prompt": 10, "load_pt": None},
    "misa_isa": {  # misa_fam.sh, imagenet900
        "lr": 1e-4,
        "len_g_prompt": 10,
        "len_e_prompt": 20,
        "pos_g_prompt": (0, 1),
        "pos_e_prompt": (2, 3, 4),
        "e_pool": 10,
        "prompt_func": "prompt_tuning",
        "lambd": 1.0,
        "rho": 0.1,
        "adaptive": False,
        "updates": 3,
        "samples": None,
        "num_sessions": 10,
        "session_share": 0.9,  # 900 of 1000 classes
        "forget_classes": 10,
        "g_proj": False,
        "e_proj": True,
        "projector_factor": 8,
        "save_to": None,
    },
    "mvp": {  # FlyGCL; gamma: scripts, where MISA's and MePo's parser has 1
        "lr": 0.005,
        "e_pool": 5,  # number of tasks
        "len_g_prompt": 5,
        "len_e_prompt": 20,
        "pos_g_prompt": (0, 1),
        "pos_e_prompt": (2, 3, 4),
        "prompt_func": "prompt_tuning",
        "use_last_layer": False,
        "use_mask": True,
        "use_contrastiv": True,
        "use_afs": True,
        "use_mcr": True,
        "alpha": 0.5,
        "gamma": 2.0,
        "margin": 0.5,
        "per_sample_focal": False,
    },
    "ncm": {},
    "ranpac": {  # FlyGCL
        "lr": 0.005,
        "adapter_blocks": 5,
        "adapter_dim": 64,
        "rp_dim": 10_000,
        "ridge": "fixed",
        "rp_ridge": 1e5,
    },
    "singleprompt": {  # its scripts, not its parser (length 10, linear)
        "lr": 0.005,
        "n_prompted_blocks": 5,
        "prompt_length": 20,
        "logit_type": "cos_sim",
    },
    "slca": {  # FlyGCL; alignment: PILOT
        "lr": 5e-5,
        "lr_head": 0.005,
        "train_mask": "batch",
        "ca_epochs": 0,
        "ca_lr": 0.01,
        "logit_norm": 0.1,
    },
    "supervised": {"lr": 1e-3, "weight_decay": 0.05, "warmup": 0.05, "label_smoothing": 0.1, "save_to": None},
    "oml_meta": {  # mrcl, README of 2020
        "steps": 700_000,
        "tasks": 3,
        "update_step": 5,
        "query": "split",
        "meta_batch": 15,
        "update_lr": 0.03,
        "meta_lr": 1e-4,
        "pln_layers": 1,
        "pln_width": 1024,
        "reset": True,
        "first_order": False,
        "capacity": 50,
        "iid": False,
        "save_to": None,
    },
    "oml": {
        "pretrain": None,
        "pretrain_dir": None,
        "rln": None,
        "pln": None,
        "lr": 0.001,
        "optimizer": "adam",
        "pln_layers": 1,
        "pln_width": 1024,
        "outputs": 1000,
        "reset": True,
    },
}
DEFAULTS["srnn"] = DEFAULTS["supervised"] | {"beta": 0.1, "sparsity": "set-kl"}
# A stage makes one update per batch and no anytime evaluation.
STAGE = {"online_iter": 1, "eval_period": -1}
# Datasets that end in `glyphs` or `digits` are ours, and so is every value for them.
PUBLISHED = {
    "coda": {
        "backbone vit_tiny_icons": {"len_e_prompt": 4},
        "seq-glyphs": {"lr": 0.001, "len_e_prompt": 4},
        "perm-mnist": {"e_pool": 20},  # one component for each of 20 tasks, the least that there can be
        "rot-mnist": {"e_pool": 20},
    },
    "dualprompt": {
        "backbone vit_tiny_icons": {"len_g_prompt": 2, "len_e_prompt": 4},
        "seq-glyphs": {"lr": 0.001, "len_g_prompt": 2, "len_e_prompt": 4},
    },
    "er": {
        "*": {"batch_size": 32},  # 64, half of it replayed
        "backbone vit_tiny_icons": {"lr": 0.005, "trainable": "head"},
        "seq-glyphs": {"lr": 0.005, "trainable": "head"},
    },
    "finetune": {"backbone vit_tiny_icons": {"lr": 0.0015, "trainable": "head"}, "seq-glyphs": {"lr": 0.0003}},
    "flyprompt": {
        "backbone vit_tiny_icons": {"lr": 0.005, "len_prompt": 4, "rp_dim": 1700},
        "seq-glyphs": {"lr": 0.005, "len_prompt": 4, "rp_dim": 1700},
        "seq-digits": {"rp_dim": 1700},
    },
    "joint": {
        "*": {"online_iter": 1},
        "host singleprompt on backbone vit_tiny_icons": {"lr": 0.005, "updates": 10},
        "host finetune on seq-glyphs": {"lr": 0.0003},
        "host singleprompt on seq-glyphs": {"lr": 0.005, "prompt_length": 20, "updates": 20},
    },
    "l2p": {"backbone vit_tiny_icons": {"len_e_prompt": 2}, "seq-glyphs": {"lr": 0.005, "len_e_prompt": 2}},
    "mepo": {
        "host l2p": {"cor_coef": 0.5},  # l2p_gcl2.sh
        "host mvp": {"cor_coef": 0.5, "align_when": "training"},  # mvp0.sh
        "host coda": {"cor_coef": 0.5},  # no release aligns these three
        "host flyprompt": {"cor_coef": 0.5},
        "host singleprompt": {"cor_coef": 0.5},
        "backbone vit_tiny_icons": {"lr": 0.015},
        "host coda on backbone vit_tiny_icons": {"lr": 0.005},
        "host mvp on backbone vit_tiny_icons": {"lr": 0.005},
        "seq-glyphs": {"lr": 0.005},
        "host singleprompt on seq-glyphs": {"lr": 0.02},
    },
    "mepo_cov": {"*": STAGE | {"batch_size": 256}, "imagenet": {"samples": 200}},
    "mepo_meta": {
        "*": STAGE | {"batch_size": 256},
        "imagenet": {"samples": 200},
        "backbone ibot21k": {"meta_epochs": 30},  # the epochs that the scripts use downstream
        "backbone sup21k_1k": {"meta_epochs": 2},
        "glyphs": {"samples": 20, "meta_epochs": 1, "num_tasks": 10, "lr": 0.001},
        "icons": {"samples": 10, "meta_epochs": 1, "num_tasks": 10, "lr": 0.001, "inner_lr": 0.5},
    },
    "misa_isa": {
        "*": STAGE | {"batch_size": 65, "n_epochs": 3},  # misa_fam.sh: temp_batchsize
        "glyphs": {"samples": 10, "n_epochs": 1, "lr": 0.001},
        "icons": {"samples": 10, "n_epochs": 1, "lr": 0.005},
    },
    "mvp": {
        "backbone vit_tiny_icons": {"len_g_prompt": 2, "len_e_prompt": 4},
        "seq-glyphs": {"lr": 0.001, "len_g_prompt": 2, "len_e_prompt": 4},
    },
    "ncm": {"*": {"online_iter": 1}},
    "ranpac": {
        "backbone vit_tiny_icons": {"lr": 0.005, "rp_dim": 1700, "rp_ridge": 1000.0},
        "seq-glyphs": {"lr": 0.005, "rp_dim": 1700, "rp_ridge": 1000.0},
        "seq-digits": {"rp_dim": 1700},
    },
    "singleprompt": {
        "*": {"batch_size": 32, "eval_mask": "none"},  # 64, half of it kept for replay
        "backbone vit_tiny_icons": {"lr": 0.015, "prompt_length": 4},
        "seq-glyphs": {"lr": 0.02, "prompt_length": 4},
    },
    "slca": {
        "backbone vit_tiny_icons": {"lr": 0.0015, "lr_head": 0.15},
        "seq-glyphs": {"lr": 0.001, "lr_head": 0.1},
    },
    "supervised": {
        "*": STAGE | {"batch_size": 256, "eval_batch_size": 256},
        "glyphs": {"n_epochs": 18, "batch_size": 100},
        "icons": {"n_epochs": 80, "batch_size": 256},
        "omniglot": {"n_epochs": 45, "lr": 1e-4, "weight_decay": 0, "label_smoothing": 0},
    },
    "oml_meta": {
        "*": STAGE | {"batch_size": 1},
        "sines": {"backbone": "mlp-400-400-400-400-400", "steps": 300_000, "tasks": 10, "batch_size": 10}
        | {"query": "minibatch", "update_lr": 0.003, "reset": False},
        "glyphs": {"backbone": "conv4-64", "steps": 4000, "meta_lr": 3e-4},
    },
    "oml": {
        "*": {"online_iter": 1, "pretrain": "glyphs"},
        "seq-characters": {"pretrain": "glyphs"},
        "seq-glyphs": {"backbone": "conv4-64"},
        "seq-omniglot": {"pretrain": "omniglot"},
        "seq-sines": {"backbone": "mlp-400-400-400-400-400", "pretrain": "sines", "optimizer": "sgd", "lr": 0.003}
        | {"reset": False, "batch_size": 32, "n_iter": 40},
    },
}
PUBLISHED["srnn"] = PUBLISHED["supervised"] | {"omniglot": PUBLISHED["supervised"]["omniglot"] | {"n_epochs": 30}}
PUBLISHED |= {"derpp": PUBLISHED["er"], "er_ace": PUBLISHED["er"], "misa": PUBLISHED["dualprompt"]}

LMSRR = {"backbone": "orig21k_1k+sup21k", "eval_period": -1, "eval_passes": "last"}
LMSRR_LONG = LMSRR | {"class_order": "natural", "n_tasks": 10}
PUBLISHED["lmsrr"] = {
    "*": {"backbone": "vit_tiny_glyphs+vit_tiny_icons", "batch_size": 32, "online_iter": 1},
    "seq-cifar10": LMSRR_LONG | {"n_tasks": 5, "alpha": 0.1, "autoaugment": False},
    "seq-cifar100": LMSRR_LONG,
    "rot-mnist": LMSRR | {"alpha": 0.1, "inputs": "plain"},
    "seq-tinyimg": LMSRR_LONG | {"alpha": 0.1, "n_epochs": 10},
    "seq-imr": LMSRR_LONG | {"n_epochs": 10},
    "seq-cub200": LMSRR_LONG | {"n_epochs": 20},
    "seq-cars196": LMSRR_LONG | {"n_tasks": 14, "n_epochs": 20},
    **{name: {"backbone": "orig21k_1k+sup21k"} for name in ("seq-mnist", "seq-fmnist", "perm-mnist")},
    **{name: {"backbone": "orig21k_1k+sup21k"} for name in ("seq-nch", "seq-gtsrb", "seq-wikiart")},
}
ONE_UPDATE = {"*": {"batch_size": 32, "online_iter": 1}}
# Mammoth's best_args.py and parser: buffer 500, batch and minibatch of 32
MAMMOTH = {"backbone": "resnet18-64", "class_order": "natural", "trainable": "all"}
MAMMOTH |= {"eval_period": -1, "eval_passes": "last", "n_epochs": 50}
C10, C100 = MAMMOTH | {"n_tasks": 5, "autoaugment": False}, MAMMOTH | {"n_tasks": 10}
REPLAYS = {"optimizer": "plain", "memory_size": 500, "train_mask": "none"}
DARK = REPLAYS | {"lr": 0.03}
PUBLISHED |= {
    "der": ONE_UPDATE
    | {
        "seq-cifar10": C10 | DARK | {"alpha": 0.3},
        "seq-cifar100": C100 | DARK | {"alpha": 0.3},
        "seq-tinyimg": C100 | DARK | {"alpha": 0.1, "n_epochs": 100},
    },
    "fdr": ONE_UPDATE | {"seq-cifar10": C10 | DARK},
    "icarl": ONE_UPDATE | {"seq-cifar10": C10 | REPLAYS | {"lr": 0.1}, "seq-cifar100": C100 | REPLAYS | {"lr": 0.3}},
    "lwf": ONE_UPDATE | {"seq-cifar10": C10 | {"lr": 0.01, "alpha": 3.0, "optim_wd": 5e-4}},
    "si": ONE_UPDATE | {"seq-cifar10": C10 | {"lr": 0.03, "c": 0.5, "xi": 1.0, "train_mask": "none"}},
}
BCL = {"*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"}}
MLP, RESNET = {"backbone": "mlp-128-128-128"}, {"backbone": "resnet18-20-pool", "n_tasks": 20}  # of BCL
GEM_MLP, GEM_RESNET = {"backbone": "mlp-100-100"}, {"backbone": "resnet18-20", "n_tasks": 20}  # of GEM
PUBLISHED |= {name: BCL | {"perm-mnist": MLP, "rot-mnist": MLP, "seq-cifar100": RESNET} for name in ("er_ring", "ftml")}
PUBLISHED |= {
    name: BCL | {"perm-mnist": GEM_MLP, "rot-mnist": GEM_MLP, "seq-cifar100": GEM_RESNET} for name in ("agem", "gem")
}
TOY = {"backbone": "mlp-10-10", "batch_size": 32, "n_iter": 10_001}  # of posterior meta-replay, as what follows
NATURAL = {"class_order": "natural"}
SPLIT = NATURAL | {"backbone": "mlp-100-100", "n_tasks": 5}
RARELY = {"eval_period": -1, "eval_passes": "last"}
HENNING = {"backbone": "mlp-1000-1000", "n_tasks": 10, "permutations": "henning"}
PERMUTED = HENNING | {"lr": 1e-4, "prior_variance": 0.1}
CIFAR = NATURAL | {"backbone": "resnet32-16", "n_tasks": 5, "inputs": "published", "autoaugment": False}
PUBLISHED |= {
    "bcl": BCL
    | {
        "perm-mnist": MLP | {"lr": 0.03, "beta": 0.3, "inner_steps": 1, "n_meta": 2, "n_memories": 256},
        "seq-cifar100": RESNET | {"lr": 0.3, "beta": 0.1, "inner_steps": 2, "n_meta": 1, "n_memories": 65},
    },
    "ewc": BCL
    | {
        "perm-mnist": GEM_MLP,
        "rot-mnist": GEM_MLP | {"lr": 0.01, "n_memories": 1000, "memory_strength": 1000.0},
        "seq-cifar100": GEM_RESNET | {"lr": 1.0, "n_memories": 10, "memory_strength": 1.0},
    },
    # READMEs of the release: variational continual learning, elastic weight consolidation
    "vcl": {
        "*": {"batch_size": 128, "online_iter": 1, "inputs": "plain"} | RARELY,
        "regression-1d": TOY
        | {"heads": "shared", "train_sample_size": 100, "lr": 1e-3, "clip_grad_norm": 1.0, "keep_orig_init": True},
        "modes-2d": TOY | {"train_sample_size": 100, "lr": 5e-4},
        "seq-mnist": SPLIT | {"n_iter": 2000, "lr": 1e-4, "kl_scale": 10.0, "keep_orig_init": True},
        "perm-mnist": PERMUTED | {"n_iter": 2000, "clip_grad_norm": 1.0, "kl_scale": 1e-5},
        "seq-cifar10": CIFAR
        | {"n_epochs": 40, "batch_size": 32, "lr": 5e-3, "clip_grad_norm": 100.0, "kl_scale": 1e-4},
    },
    "ewc_posterior": {
        "*": {"batch_size": 32, "online_iter": 1, "inputs": "plain"} | RARELY,
        "regression-1d": TOY | {"heads": "shared", "lr": 5e-4},
        "modes-2d": TOY | {"heads": "growing", "lr": 5e-4, "clip_grad_value": 1.0},
        "seq-mnist": SPLIT | {"n_iter": 2001, "lr": 5e-4, "ewc_lambda": 10.0},
        "perm-mnist": PERMUTED | {"n_iter": 5001, "clip_grad_norm": 100.0, "ewc_lambda": 0.01, "n_fisher": 200},
        "seq-cifar10": CIFAR
        | {"n_epochs": 40, "lr": 1e-3, "ewc_lambda": 1000.0, "n_fisher": 200, "det_multi_head": True},
    },
}

# README of the release: what differs from its parser. Lines of SP are those of fine-tuning, too.
SMALL, CLIP = {"backbone": "mlp-10-10", "batch_size": 32}, {"clip_grad_norm": 1.0}
CHUNKS, LINEAR = {"hnet_type": "chunked_hmlp"}, {"hnet_type": "chunked_hmlp", "hmlp_arch": ""}
LOCAL, TWICE = {"local_reparam_trick": True}, {"divide_twice": True}
EMB_16, EMB_32 = ({"cond_emb_size": size, "chunk_emb_size": size} for size in (16, 32))
DIRAC = {
    "modes-2d": {"beta": 0.01, "n_iter": 5001, "lr": 1e-4, "hmlp_arch": "10,10", "cond_emb_size": 2},
    "regression-1d": CLIP | {"beta": 0.1, "n_iter": 10001, "lr": 1e-3, "hmlp_arch": "50,50", "cond_emb_size": 8},
    "seq-mnist": CHUNKS
    | EMB_32
    | {"beta": 10, "batch_size": 32, "n_iter": 5000, "lr": 5e-4, "chmlp_chunk_size": 8000, "std_normal_emb": 0.1}
    | {"hmlp_arch": "10,10,10,10"},
    "perm-mnist": CHUNKS
    | EMB_16
    | CLIP
    | {"beta": 100, "batch_size": 32, "n_iter": 5000, "lr": 5e-4, "chmlp_chunk_size": 40000, "std_normal_emb": 0.1}
    | {"hmlp_arch": "50,50"},
    "seq-cifar10": LINEAR
    | EMB_16
    | {"beta": 50, "n_epochs": 40, "lr": 5e-4, "chmlp_chunk_size": 7000, "std_normal_temb": 0.01},
}
BBB = {
    "modes-2d": CLIP
    | LOCAL
    | TWICE
    | {"beta": 0.1, "regularizer": "w2", "n_iter": 5001, "lr": 5e-4, "train_sample_size": 10, "hmlp_arch": "50,50"}
    | {"hnet_net_act": "sigmoid", "cond_emb_size": 32, "hyper_gauss_init": True},
    "regression-1d": LOCAL  # whose code divides once
    | {"beta": 10, "regularizer": "fkl", "n_iter": 5001, "lr": 5e-4, "train_sample_size": 10}
    | {"hmlp_arch": "10,10", "cond_emb_size": 8},
    "seq-mnist": LINEAR
    | TWICE
    | EMB_32
    | {"beta": 100, "regularizer": "w2", "batch_size": 128, "n_iter": 5000, "lr": 1e-4, "train_sample_size": 10}
    | {"kl_scale": 1e-4, "chmlp_chunk_size": 2500, "use_cond_chunk_embs": True}
    | {"std_normal_temb": 0.1, "std_normal_emb": 0.1},
    "perm-mnist": LINEAR
    | TWICE
    | {"beta": 1, "regularizer": "fkl", "batch_size": 128, "n_iter": 5000, "lr": 1e-5, "train_sample_size": 10}
    | {"kl_scale": 1e-4, "chmlp_chunk_size": 32000, "cond_emb_size": 64, "chunk_emb_size": 32}
    | {"use_cond_chunk_embs": True, "std_normal_temb": 0.1},
    "seq-cifar10": CHUNKS
    | EMB_16
    | {"beta": 25, "n_epochs": 60, "lr": 1e-3, "train_sample_size": 10, "kl_scale": 1e-4, "chmlp_chunk_size": 9000}
    | {"hmlp_arch": "100,100", "std_normal_emb": 0.01, "hyper_gauss_init": True},
}
SP_DIRAC = {
    "modes-2d": CLIP | {"n_iter": 10001, "lr": 1e-3},
    "regression-1d": CLIP | {"n_iter": 10001, "lr": 1e-3},  # ours
    "seq-mnist": {"batch_size": 128, "n_iter": 5000, "lr": 5e-4},
    "perm-mnist": CLIP | {"batch_size": 128, "n_iter": 5000, "lr": 1e-3},
    "seq-cifar10": {"n_epochs": 40, "lr": 5e-4},
}
SP_BBB = {
    "modes-2d": CLIP | LOCAL | {"n_iter": 10001, "lr": 1e-3, "train_sample_size": 1},
    "regression-1d": LOCAL | {"n_iter": 5001, "lr": 5e-4, "train_sample_size": 10, "keep_orig_init": True},  # ours
    "seq-mnist": {"batch_size": 128, "n_iter": 2000, "lr": 1e-3, "train_sample_size": 50, "kl_scale": 0.01},
    "perm-mnist": CLIP | {"batch_size": 128, "n_iter": 5000, "lr": 1e-4, "train_sample_size": 10, "kl_scale": 5e-5},
    "seq-cifar10": {"n_epochs": 80, "lr": 0.01, "train_sample_size": 10, "kl_scale": 0.01, "keep_orig_init": True},
}
PUBLISHED["posterior_replay"] = {
    "*": {"batch_size": 128, "online_iter": 1, "inputs": "plain"} | RARELY,
    "modes-2d": SMALL,
    "regression-1d": SMALL | {"heads": "shared"},
    "seq-mnist": SPLIT,
    "perm-mnist": HENNING,
    "seq-cifar10": CIFAR | {"batch_size": 32},
} | {
    f"{variant} on {dataset}": values
    for variant, lines in {
        "dirac replay": DIRAC,
        "bbb replay": BBB,
        "dirac separate": SP_DIRAC,
        "bbb separate": SP_BBB,
        "dirac none": SP_DIRAC,
        "bbb none": SP_BBB,
    }.items()
    for dataset, values in lines.items()
}

RUN = {  # scripts of all three; where they differ, FlyGCL's, but for precision
    "scenario": "si-blurry",
    "n_tasks": 5,
    "n": 50,
    "m": 10,
    "varying": True,
    "n_epochs": 1,
    "batch_size": 64,
    "online_iter": 3,
    "eval_period": 1000,
    "eval_batch_size": 128,
    "eval_mask": "seen",
    "validation": 0.0,
    "precision": "32",
    "backbone": "vit_tiny_glyphs",
}
MNIST = {"backbone": "sup21k", "scenario": "domain-il", "n_tasks": 20}
SETTINGS = {  # of a run on the dataset
    "glyphs": {},
    "icons": {},
    "imagenet": {"backbone": "sup21k"},
    "omniglot": {"backbone": "conv6-256"},
    "perm-mnist": MNIST,
    "rot-mnist": MNIST,
    "seq-characters": {"backbone": "conv4-64", "eval_period": 500},
    "seq-digits": {"eval_period": 100},
    "seq-emoji": {"backbone": "vit_tiny_icons", "eval_period": 1000},
    "seq-folder": {},
    "seq-gem": {"backbone": "mlp-128-128-128", "scenario": "task-il", "eval_period": -1},
    "seq-glyphs": {"eval_period": 500},
    "seq-glyphs-dev": {"eval_period": 500},
    "seq-icons": {"backbone": "vit_tiny_icons", "eval_period": 1000},
    "seq-icons-dev": {"backbone": "vit_tiny_icons", "eval_period": 500},
    "seq-gtsrb": {"backbone": "sup21k", "eval_period": 2000},  # misa.sh of MISA and MePo
    "seq-omniglot": {"backbone": "conv6-256"},
}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
HALF = (0.5,) * 3, (0.5,) * 3  # ours
GREY = (0.1307,) * 3, (0.3081,) * 3
AS_THEY_ARE = (0.0,) * 3, (1.0,) * 3  # mrcl
STATISTICS = {  # mean and std of the releases' data_loader.py, and the policy of AutoAugment in their _trainer.py
    "glyphs": (*HALF, None),
    "icons": (*HALF, None),
    "imagenet": (*IMAGENET, None),
    "omniglot": (*AS_THEY_ARE, None),
    "perm-digits": (*HALF, None),  # with --inputs published; its default is plain
    "perm-mnist": (*GREY, None),
    "rot-mnist": (*GREY, None),
    "seq-cars196": ((0.46951303, 0.45906875, 0.45407656), (0.29279903, 0.2917511, 0.2999349), None),
    "seq-characters": (*HALF, None),
    "seq-cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "cifar10"),
    "seq-cifar100": (*CIFAR100, "cifar10"),
    "seq-cub200": (*CIFAR100, None),
    "seq-digits": (*HALF, None),
    "seq-emoji": (*HALF, None),
    "seq-fmnist": ((0.2860,) * 3, (0.3530,) * 3, None),
    "seq-folder": (*IMAGENET, None),
    "seq-gem": (*HALF, None),  # as above
    "seq-glyphs": (*HALF, None),
    "seq-glyphs-dev": (*HALF, None),
    "seq-gtsrb": (*IMAGENET, None),
    "seq-icons": (*HALF, None),
    "seq-icons-dev": (*HALF, None),
    "seq-imr": (*IMAGENET, "imagenet"),
    "seq-mnist": (*GREY, None),
    "seq-nch": (*IMAGENET, None),
    "seq-omniglot": (*AS_THEY_ARE, None),
    "seq-tinyimg": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262), "imagenet"),
    "seq-wikiart": (*IMAGENET, "imagenet"),
}
# Options that come from nobody: names of files and folders, of methods and datasets, seeds, and how a run is run.
WITHOUT_SOURCE = {
    "pretrain",
    "pretrain_dir",
    "meta_path",
    "cor_path",
    "load_pt",
    "save_to",
    "model",
    "dataset",
    "backbone",
    "backbone_path",
    "scenario",
    "keep_state",
    "validation",
    "seed",
    "seeds",
    "stream_seed",
    "init_seed",
    "train_seed",
    "device",
    "data_dir",
    "cache_dir",
    "checkpoint_dir",
    "results",
    "resume",
    "save_every",
    "on_nan",
    "export",
    "logger",
    "plugins",
    "dry_run",
    "debug",
}
ON_STREAMS = sorted(name for name in METHODS.files() if "si-blurry" in METHODS.load(name).scenarios)


@pytest.mark.parametrize("name", METHODS.files())
def test_defaults_and_published_values(name):
    method = METHODS.load(name)
    args = method.Args()
    assert {option: getattr(args, option) for option in option_names(method.Args)} == DEFAULTS[name]
    assert method.published == PUBLISHED[name]


@pytest.mark.parametrize("name", [*METHODS.files(), "every run"])
def test_every_option_says_where_its_value_comes_from(name):
    args = RunArgs if name == "every run" else METHODS.load(name).Args
    told = {field.name: field.metadata["source"] for field in fields(args) if "source" in field.metadata}
    assert {option for option, source in told.items() if not source.strip()} <= WITHOUT_SOURCE


def test_origins_tell_of_releases_that_differ():
    source = {field.name: field.metadata.get("source") for field in fields(RunArgs)}
    assert "FlyGCL scripts: mixed precision" in source["precision"]
    assert "GTSRB in MISA and MePo: 2000" in source["eval_period"]
    (cor_coef,) = (field for field in fields(METHODS.load("mepo").Args) if field.name == "cor_coef")
    assert "MePo's own MISA scripts: 0" in cor_coef.metadata["source"]


@pytest.mark.parametrize("name", ON_STREAMS)
@pytest.mark.parametrize(
    "dataset",
    [*sorted(SETTINGS.keys() - {"glyphs", "icons", "imagenet", "omniglot"}), "seq-cifar100", "seq-imr", "seq-nch"],
)
def test_values_of_a_run(name, dataset):
    expected = RUN | SETTINGS.get(dataset, {"backbone": "sup21k"})
    own = PUBLISHED[name].get("*", {}) | PUBLISHED[name].get(dataset, {})
    expected |= {option: value for option, value in own.items() if option in RUN}
    if expected["scenario"] == "si-blurry":
        expected["scenario"] = METHODS.load(name).scenarios[0]
    run = plans.make({"model": name, "dataset": dataset}).run
    assert {option: getattr(run, option) for option in RUN} == expected


@pytest.mark.parametrize(
    "name, dataset, own",
    [
        ("mepo_meta", "imagenet", {"scenario": "episodes", "batch_size": 256}),
        ("mepo_meta", "glyphs", {"scenario": "episodes", "batch_size": 256}),
        ("mepo_cov", "imagenet", {"scenario": "shuffled", "batch_size": 256}),
        ("misa_isa", "imagenet", {"scenario": "adaptation", "batch_size": 65, "n_epochs": 3}),
        ("misa_isa", "glyphs", {"scenario": "adaptation", "batch_size": 65}),
        ("oml_meta", "glyphs", {"scenario": "trajectories", "batch_size": 1, "backbone": "conv4-64"}),
        ("supervised", "glyphs", {"scenario": "shuffled", "batch_size": 100, "eval_batch_size": 256, "n_epochs": 18}),
    ],
)
def test_values_of_a_stage(name, dataset, own):
    run = plans.make({"model": name, "dataset": dataset}).run
    assert {option: getattr(run, option) for option in RUN} == RUN | STAGE | SETTINGS[dataset] | own


@pytest.mark.parametrize("name", DATASETS.files())
def test_statistics_and_policy_of_a_dataset(name):
    kind = DATASETS.load(name)
    if name in ("modes-2d", "regression-1d", "sines", "seq-sines"):
        assert kind.num_inputs is not None and not hasattr(kind, "mean")  # numbers pass as they are
        return
    assert (kind.mean, kind.std, getattr(kind, "policy", None)) == STATISTICS[name]


@pytest.mark.parametrize(
    "name, option", [("dualprompt", "step_num"), ("misa", "step_num"), ("flyprompt", "step_num"), ("mvp", "e_pool")]
)
def test_what_there_is_one_of_per_task_follows_the_number_of_tasks(name, option):
    def value(plan):
        assert plan.settings()["method"][option] == getattr(plan.method_args, option)  # as config.yaml has it
        return getattr(plan.method_args, option)

    given = {"model": name, "dataset": "seq-digits"}
    assert value(plans.make(given)) == 5
    assert value(plans.make(given | {"n_tasks": 12})) == 12
    assert value(plans.make(given | {"dataset": "perm-mnist"})) == 20
    assert value(plans.make(given | {"n_tasks": 12, option: 7})) == 7
    shown = plans.parse(["--model", name, "--dataset", "seq-digits", "--n_tasks", "12", "--help"])
    assert f"--{option} INT" in shown and "default: --n_tasks [12; FlyGCL: number of tasks" in " ".join(shown.split())


def test_a_host_follows_the_number_of_tasks_too():
    plan = plans.make({"model": "mepo", "host": "mvp", "dataset": "seq-digits", "n_tasks": 8})
    assert plan.method_args.host_args.e_pool == plan.settings()["host"]["e_pool"] == 8


def test_the_first_stage_of_misa_has_one_step():
    plan = plans.make({"model": "misa_isa", "dataset": "glyphs"})
    fixed = {"step_num": 1, "step_schedule": "samples", "prompt_index": "global", "train_mask": "seen"}
    assert {name: getattr(plan.method_args, name) for name in fixed} == fixed


def test_constants():
    assert models.singleprompt.TEMPERATURE == 0.1
    assert models.mepo.RIDGE == 1e-4
    assert models.ranpac.DROPOUT == 0.1
    # Alignment of SLCA, as in PILOT.
    alignment = inspect.signature(models.slca.align_classifier).parameters
    assert (models.slca.RIDGE, models.slca.DRAWS, models.slca.WEIGHT_DECAY) == (1e-4, 256, 5e-4)
    assert (alignment["momentum"].default, alignment["weight_decay"].default) == (0.9, 5e-4)
    assert list(RIDGES) == [10.0**k for k in range(-8, 9)]  # paper, Mammoth and PILOT
    assert Episodes.PASSES == 4
    assert Adaptation.RESTART == 1 / 3
    assert inspect.signature(FAM).parameters["rho"].default == 0.1
    assert utils.training.metrics.CLASS_COUNT_OFFSET == 1e-5


@pytest.mark.parametrize("name", ["er", "l2p", "dualprompt", "coda", "mvp", "flyprompt", "slca", "supervised"])
def test_classifiers_begin_small(name):
    """Truncated normal of deviation 0.02, no bias, as timm's in the releases."""
    head = build(name, {"rp_dim": 8} if name == "flyprompt" else {}).model.head
    assert 0.017 < head.weight.std() < 0.023 and not head.bias.any()


def test_prompts_and_keys_begin_as_released():
    """Uniform in [-1, 1], but for MVP: normal, masks -1, and FlyPrompt: test_flyprompt.py."""
    l2p, dualprompt, misa = (build(name).model for name in ("l2p", "dualprompt", "misa"))
    single, mvp = build("singleprompt").model, build("mvp").model
    pools = l2p.prompt, dualprompt.e_prompt, misa.e_prompt
    even = [single.prompt, dualprompt.g_prompt.prompts, *(t for pool in pools for t in (pool.key, pool.prompts))]
    for tensor in even:
        assert -1 <= tensor.min() < -0.9 and 0.9 < tensor.max() <= 1 and abs(tensor.std() - 3**-0.5) < 0.05
    for tensor in (mvp.key, mvp.g_prompts, mvp.e_prompts):
        assert abs(tensor.std() - 1) < 0.1
    assert (mvp.mask == -1).all() and not mvp.count.any()


def test_shift_of_class_means():
    """SLCA: by a tenth at most, none for the newest task."""
    shifted = models.slca.shifted_means(torch.ones(3, 1), torch.tensor([0, 1, 1]), task=1)
    torch.testing.assert_close(shifted[:, 0], torch.tensor([0.95, 1.0, 1.0]))


@pytest.mark.parametrize("dataset", ["perm-mnist", "rot-mnist"])
@pytest.mark.parametrize("name", ["finetune", "er_ring", "bcl", "gem"])
def test_a_small_network_on_mnist_learns_as_in_gem_and_bcl(name, dataset):
    plan = plans.make({"model": name, "dataset": dataset, "backbone": "mlp-100-100"})
    assert (plan.run.batch_size, plan.run.online_iter, plan.run.n_tasks, plan.tasks.inputs) == (10, 1, 20, "plain")
    plan = plans.make({"model": "finetune", "dataset": dataset})
    assert (plan.run.backbone, plan.run.batch_size, plan.tasks.inputs) == ("sup21k", 64, "published")
