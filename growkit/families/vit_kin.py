"""ViT's kin: DeiT, DINOv2 with registers and I-JEPA, which differ by tokens that are no patches. Data only."""

from dataclasses import replace

from growkit.families.bert import renamed
from growkit.families.modules import linear
from growkit.families.vit import DINOV2, VIT

DEIT = replace(
    VIT,
    model_type="deit",
    tensors={
        "embeddings.distillation_token": "one one hidden",
        **VIT.tensors,
        **linear("cls_classifier", "label", "hidden"),
        **linear("distillation_classifier", "label", "hidden"),
    },
    prefixes=("deit.",),
    architectures=(
        ("distillation_classifier.weight", "DeiTForImageClassificationWithTeacher"),
        *renamed(VIT.architectures, "ViT", "DeiT"),
    ),
)
DINOV2_WITH_REGISTERS = replace(
    DINOV2,
    model_type="dinov2_with_registers",
    tensors={"embeddings.register_tokens": "one position hidden", **DINOV2.tensors},
    prefixes=("dinov2_with_registers.",),
    architectures=renamed(DINOV2.architectures, "Dinov2", "Dinov2WithRegisters"),
    variants=({"use_swiglu_ffn": True}, {"qkv_bias": False}, {"mlp_ratio": 2}),
)
IJEPA = replace(
    VIT,
    model_type="ijepa",
    tensors={
        name: axes
        for name, axes in VIT.tensors.items()
        if not name.startswith(("embeddings.cls_token", "embeddings.mask_token", "pooler.", "decoder."))
    },
    pinned=(),
    prefixes=("ijepa.",),
    architectures=renamed(VIT.architectures[1:], "ViT", "IJepa"),
    small={"image_size": 12, "patch_size": 4},
    variants=({"qkv_bias": False},),
)

FAMILIES = (DEIT, DINOV2_WITH_REGISTERS, IJEPA)
