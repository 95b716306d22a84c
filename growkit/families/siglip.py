"""The towers of SigLIP, each by itself, and both, of which the one that reads texts grows. The one that reads images
pools them by an attention of its own, whose probe is read as if the last norm had put it out. Data only.
"""

from growkit.families.clip import ENCODER, READS_IMAGES, READS_TEXTS, TEXT, two_towers
from growkit.families.modules import linear, norm
from growkit.families.schema import Family

FUSED = "(head query_dim | head key_dim | head value_dim)"

SIGLIP_VISION = Family(
    model_type="siglip_vision_model",
    tensors={
        "embeddings.patch_embedding.weight": "hidden /channel /kernel /kernel",
        "embeddings.patch_embedding.bias": "hidden",
        "embeddings.position_embedding.weight": "position hidden",
        **ENCODER,
        **norm("post_layernorm", before_head=True),
        "head.probe": "one one +hidden",
        "head.attention.in_proj_weight": f"{FUSED} /hidden",
        "head.attention.in_proj_bias": FUSED,
        **linear("head.attention.out_proj", "hidden", "(head value_dim)"),
        **norm("head.layernorm"),
        **linear("head.mlp.fc1", "ffn", "hidden"),
        **linear("head.mlp.fc2", "hidden", "ffn"),
    },
    architectures=(("*", "SiglipVisionModel"),),
    small={"image_size": 12, "patch_size": 4},
    variants=({"vision_use_head": False},),
    **READS_IMAGES,
)

SIGLIP_TEXT = Family(
    model_type="siglip_text_model",
    tensors={**TEXT, **linear("head", "space", "hidden")},
    causal=False,
    pinned=("projection_size",),
    architectures=(("*", "SiglipTextModel"),),
    variants=({"projection_size": 10},),
    **READS_TEXTS,
)

# the space that both share is as wide as the tower that reads images
SIGLIP = two_towers(SIGLIP_TEXT, "siglip", "SiglipModel", small={"projection_size": 16}, variants=())

FAMILIES = (SIGLIP_VISION, SIGLIP_TEXT, SIGLIP)
