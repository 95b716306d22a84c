"""Gemma 3: Gemma 2 with norms over heads and a rotary base for each type of layers, alone and beside a tower whose
images are pooled, normed and projected to what embeddings are after they are scaled; and VaultGemma, Gemma 2 without
norms behind its blocks. Data only.
"""

from dataclasses import replace

from growkit.families.bert import renamed
from growkit.families.llama import AFTER_BLOCKS, BRANCH_NORMS, DECODER, GEMMA2, GEMMA_FACTS, HEAD_NORM, llama_like
from growkit.families.schema import RMS, AttentionWindows, Norms, Rotary, Tower
from growkit.families.vision_language import IMAGES, SMALL_TOWER, beside_tower

GEMMA3_TEXT = llama_like(
    "gemma3_text",
    "Gemma3",
    {**DECODER, **HEAD_NORM, **BRANCH_NORMS},
    hidden_by_heads=True,
    score_keys={"query_pre_attn_scalar": None},
    norms=Norms(kind=RMS, gain_offset=1.0, on_heads=True, branch=AFTER_BLOCKS),
    rotary=Rotary(by_type={"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}),
    windows=AttentionWindows(listed=("layer_types",)),
    defaults={"head_dim": 256, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096},
    architectures=(
        ("score.weight", "Gemma3TextForSequenceClassification"),
        ("lm_head.weight", "Gemma3ForCausalLM"),
        ("", "Gemma3TextModel"),
        ("*", "Gemma3ForCausalLM"),
    ),
    small={"query_pre_attn_scalar": 12, "sliding_window": 6, "sliding_window_pattern": 2},
    variants=({"attention_bias": True, "sliding_window_pattern": 3, "final_logit_softcapping": 3.0},),
    **GEMMA_FACTS,
)
VAULTGEMMA = replace(
    GEMMA2,
    model_type="vaultgemma",
    tensors={
        name: axes for name, axes in GEMMA2.tensors.items() if f"{name.rpartition('.')[0]}.weight" not in AFTER_BLOCKS
    },
    norms=Norms(kind=RMS, gain_offset=1.0),
    architectures=renamed(GEMMA2.architectures, "Gemma2", "VaultGemma"),
)

GEMMA3 = beside_tower(
    GEMMA3_TEXT,
    "gemma3",
    "Gemma3",
    {"multi_modal_projector.mm_input_projection_weight": "/space hidden"},
    Tower(
        texts=("gemma3_text",),
        settings={"vision_config": SMALL_TOWER, "mm_tokens_per_image": 4, "image_token_index": 5},
        tokens=4,
        token="image_token_index",
        inputs=IMAGES,
        marks="token_type_ids",
    ),
    architectures=(
        ("score.weight", "Gemma3ForSequenceClassification"),
        ("*", "Gemma3ForConditionalGeneration"),
    ),
)

FAMILIES = (GEMMA3_TEXT, GEMMA3, VAULTGEMMA)
