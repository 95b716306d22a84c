"""GPT-J and CodeGen: pre-LayerNorm decoders with parallel blocks, whose rotary slots turn in neighbouring pairs. Data
only.
"""

from typing import Any

from growkit.families.modules import decoder_classes, linear, norm, task_heads
from growkit.families.schema import LAYER, Family, Norms, Rotary

_OUTSIDE = {
    "wte.weight": "vocab hidden",
    **norm("h.{layer}.ln_1"),
    "h.{layer}.attn.out_proj.weight": "hidden /(head value_dim)",
    **linear("h.{layer}.mlp.fc_in", "ffn", "hidden"),
    **linear("h.{layer}.mlp.fc_out", "hidden", "ffn"),
    **norm("ln_f", before_head=True),
    **linear("lm_head", "vocab", "hidden"),
    **task_heads(),
}

_FACTS: dict[str, Any] = dict(
    sizes={
        "hidden": "n_embd",
        "head": "n_head",
        "ffn": "n_inner",
        "vocab": "vocab_size",
        "layer": "n_layer",
        "position": "n_positions",
    },
    norms=Norms(kind=LAYER),
    rotary=Rotary(size_key="rotary_dim", pairs=True),
    embedding="wte.weight",
    heads=("lm_head.weight",),
    tied=False,
    prefixes=("transformer.",),
    defaults={"n_inner": None, "rotary_dim": 64},
    buffers=("h.{layer}.attn.bias", "h.{layer}.attn.masked_bias", "h.{layer}.attn.causal_mask"),
)

GPTJ = Family(
    model_type="gptj",
    tensors={
        **_OUTSIDE,
        "h.{layer}.attn.q_proj.weight": "(head query_dim) /hidden",
        "h.{layer}.attn.k_proj.weight": "(head key_dim) /hidden",
        "h.{layer}.attn.v_proj.weight": "(head value_dim) /hidden",
    },
    architectures=decoder_classes("GPTJ", "score.weight", "qa_outputs.weight", "lm_head.weight", "", "*"),
    **_FACTS,
    small={"rotary_dim": 4},
)

CODEGEN = Family(
    model_type="codegen",
    tensors={
        **_OUTSIDE,
        # heads lie on the four cores it was trained on
        "h.{layer}.attn.qkv_proj.weight": "(4: head query_dim | head value_dim | head key_dim) /hidden",
    },
    architectures=decoder_classes("CodeGen", "lm_head.weight", "", "*"),
    **_FACTS,
    small={"rotary_dim": 4},
)

FAMILIES = (GPTJ, CODEGEN)
