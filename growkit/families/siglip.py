"""The towers of SigLIP, each by itself. The one that reads images pools them by an attention of its own, whose probe is
read as if the last norm had put it out. Data only.
"""

from growkit.families.clip import ENCODER, SIZES, TEXT
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms

FUSED = "(head query_dim | head key_dim | head value_dim)"

SIGLIP_VISION = Family(
    model_type="siglip_vision_model",
    sizes=SIZES,
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
    norms=Norms(kind=LAYER),
    causal=False,
    packs=False,
    tied=False,
    embedding="embeddings.patch_embedding.weight",
    heads=(),
    pools="hidden",
    prefixes=("vision_model.",),
    architectures=(("*", "SiglipVisionModel"),),
    buffers=("embeddings.position_ids",),
    small={"image_size": 12, "patch_size": 4},
    variants=({"vision_use_head": False},),
)

SIGLIP_TEXT = Family(
    model_type="siglip_text_model",
    sizes={**SIZES, "vocab": "vocab_size", "position": "max_position_embeddings"},
    tensors={**TEXT, **linear("head", "space", "hidden")},
    norms=Norms(kind=LAYER),
    causal=False,
    packs=False,
    tied=False,
    embedding="embeddings.token_embedding.weight",
    heads=(),
    pinned=("projection_size",),
    prefixes=("text_model.",),
    architectures=(("*", "SiglipTextModel"),),
    buffers=("embeddings.position_ids",),
    variants=({"projection_size": 10},),
)

FAMILIES = (SIGLIP_VISION, SIGLIP_TEXT)
