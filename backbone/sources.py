"""The seven pretrained ViT-B/16 of the field: where their weights come from, and under which names users have them.

All are timm's `vit_base_patch16_224` in shape (LayerNorm eps 1e-6, qkv bias). Beware: in the repositories of general
continual learning that name means Sup-21K, in timm the network fine-tuned on ImageNet-1K.
"""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURE = "vit_base_patch16_224"


@dataclass(frozen=True)
class Source:
    """files: names in the checkpoint folder, the first that exists is read. address: of the first of them.

    final_norm: whether features pass the last LayerNorm.
    """

    what: str
    files: tuple[str, ...]
    address: str
    licence: str
    final_norm: bool = True


# How each file is laid out stands beside it; `backbone.readers` recognises all of these by itself.
SOURCES = {
    # Google's names and axes; head and pre_logits are left out.
    "sup21k": Source(
        "supervised on ImageNet-21K",
        ("ViT-B_16.npz",),
        "https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz",
        "Apache-2.0",
    ),
    # As the one before. Its fine-tuning without augmentation is LMSRR's first source (on Hugging Face
    # google/vit-base-patch16-224); the next is another fine-tune, AugReg's.
    "orig21k_1k": Source(
        "supervised on ImageNet-21K, then 1K at 224 px, the original",
        ("ViT-B_16-224.npz",),
        "https://storage.googleapis.com/vit_models/imagenet21k%2Bimagenet2012/ViT-B_16-224.npz",
        "Apache-2.0",
    ),
    # timm's names. The second file is FlyGCL's copy, at https://huggingface.co/HoraceYan/FlyGCL. Newer timm versions
    # give another fine-tune (augreg2) under the short name.
    "sup21k_1k": Source(
        "supervised on ImageNet-21K, then 1K",
        ("vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors", "vit_21k_1k_mepo_epoch_0.pth"),
        "https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
        "Apache-2.0",
    ),
    # A full checkpoint: 'teacher', with 'backbone.' before the names; the projector in head.* is left out.
    # The official name is that of iBOT's other full checkpoints too, so that one of our own comes first.
    "ibot21k": Source(
        "iBOT on ImageNet-21K, teacher",
        ("ibot21k.pth", "checkpoint.pth"),
        "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/vitb_16_pt22k/checkpoint.pth",
        "Apache-2.0",
    ),
    # 'state_dict', timm's names. The second name is FlyGCL's.
    "ibot1k": Source(
        "iBOT on ImageNet-1K, teacher",
        ("checkpoint_teacher.pth", "ibot_vitbase16_pretrain.pth"),
        "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/vitb_16/checkpoint_teacher.pth",
        "Apache-2.0",
    ),
    # timm's names, no container.
    "dino1k": Source(
        "DINO on ImageNet-1K",
        ("dino_vitbase16_pretrain.pth",),
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        "Apache-2.0",
    ),
    # The official checkpoint: 'state_dict', with 'module.base_encoder.' before the names. FlyGCL's file is what the
    # official convert_to_deit.py makes of it: 'model', timm's names. No final norm, as in FlyGCL, which moves it to
    # `fc_norm` and never calls that, so that the published numbers rest on features without it.
    "mocov3_1k": Source(
        "MoCo v3 on ImageNet-1K, 300 epochs",
        ("vit-b-300ep.pth.tar", "mocov3-vit-base-300ep.pth"),
        "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
        "CC BY-NC 4.0",
        final_norm=False,
    ),
}
