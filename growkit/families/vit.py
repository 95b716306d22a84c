"""Vision transformers that read an image as a text of patches: ViT and DINOv2, with their task heads. Data only."""

from typing import Any

from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms

PATCHES = {
    "embeddings.cls_token": "one one hidden",
    "embeddings.position_embeddings": "one position hidden",
    "embeddings.patch_embeddings.projection.weight": "hidden /channel /kernel /kernel",
    "embeddings.patch_embeddings.projection.bias": "hidden",
}
ATTENTION = {
    **linear("encoder.layer.{layer}.attention.attention.query", "(head query_dim)", "hidden"),
    **linear("encoder.layer.{layer}.attention.attention.key", "(head key_dim)", "hidden"),
    **linear("encoder.layer.{layer}.attention.attention.value", "(head value_dim)", "hidden"),
    **linear("encoder.layer.{layer}.attention.output.dense", "hidden", "(head value_dim)"),
}
SIZES = {"hidden": "hidden_size", "head": "num_attention_heads", "layer": "num_hidden_layers"}
_FACTS: dict[str, Any] = dict(
    norms=Norms(kind=LAYER),
    causal=False,
    packs=False,
    tied=False,
    embedding="embeddings.patch_embeddings.projection.weight",
    heads=(),
)

VIT = Family(
    model_type="vit",
    sizes={**SIZES, "ffn": "intermediate_size"},
    tensors={
        "embeddings.mask_token": "one one hidden",
        **PATCHES,
        **ATTENTION,
        **norm("encoder.layer.{layer}.layernorm_before"),
        **norm("encoder.layer.{layer}.layernorm_after"),
        **linear("encoder.layer.{layer}.intermediate.dense", "ffn", "hidden"),
        **linear("encoder.layer.{layer}.output.dense", "hidden", "ffn"),
        **norm("layernorm", before_head=True),
        **linear("pooler.dense", "space", "hidden"),
        **linear("classifier", "label", "hidden"),
        "decoder.0.weight": "label /hidden /kernel /kernel",
        "decoder.0.bias": "label",
    },
    **_FACTS,
    pinned=("pooler_output_size",),
    prefixes=("vit.",),
    architectures=(
        ("decoder.0.weight", "ViTForMaskedImageModeling"),
        ("classifier.weight", "ViTForImageClassification"),
        ("*", "ViTModel"),
    ),
    small={"image_size": 12, "patch_size": 4, "encoder_stride": 4},
    variants=({"qkv_bias": False}, {"pooler_output_size": 10}),
)

DINOV2 = Family(
    model_type="dinov2",
    sizes=SIZES,
    tensors={
        "embeddings.mask_token": "one hidden",
        **PATCHES,
        **norm("encoder.layer.{layer}.norm1"),
        **ATTENTION,
        "encoder.layer.{layer}.layer_scale1.lambda1": "~hidden",
        **norm("encoder.layer.{layer}.norm2"),
        **linear("encoder.layer.{layer}.mlp.fc1", "ffn", "hidden"),
        **linear("encoder.layer.{layer}.mlp.fc2", "hidden", "ffn"),
        **linear("encoder.layer.{layer}.mlp.weights_in", "(ffn | ffn)", "hidden"),
        **linear("encoder.layer.{layer}.mlp.weights_out", "hidden", "ffn"),
        "encoder.layer.{layer}.layer_scale2.lambda1": "~hidden",
        **norm("layernorm", before_head=True),
        **linear("classifier", "label", "(hidden | hidden)"),  # of the class token, and of the mean of the patches
    },
    **_FACTS,
    pools="hidden",
    ffn_ratio="mlp_ratio",
    ffn_gated="use_swiglu_ffn",
    stored_where={
        "encoder.layer.{layer}.mlp.fc1.weight": ({"use_swiglu_ffn": (False,)},),
        "encoder.layer.{layer}.mlp.fc2.weight": ({"use_swiglu_ffn": (False,)},),
        "encoder.layer.{layer}.mlp.weights_in.weight": ({"use_swiglu_ffn": (True,)},),
        "encoder.layer.{layer}.mlp.weights_out.weight": ({"use_swiglu_ffn": (True,)},),
    },
    only_multiples={
        "layerscale_value": (
            (),
            ("hidden",),
            "each entry of what a block writes has a scale of its own, and no weight can write the mean of what comes of it",
        )
    },
    prefixes=("dinov2.",),
    architectures=(
        ("classifier.weight", "Dinov2ForImageClassification"),
        ("*", "Dinov2Model"),
    ),
    small={"image_size": 12, "patch_size": 4},
    variants=({"use_swiglu_ffn": True}, {"qkv_bias": False, "use_mask_token": False}, {"mlp_ratio": 2}),
)

FAMILIES = (VIT, DINOV2)
