"""GPT-Neo: GPT-2's decoder with layers that see a window only, and scores that nothing divides. Data only."""

from growkit.families.modules import decoder_classes, linear, norm, task_heads
from growkit.families.schema import LAYER, AttentionWindows, Family, Norms

GPT_NEO = Family(
    model_type="gpt_neo",
    sizes={
        "hidden": "hidden_size",
        "head": "num_heads",
        "ffn": "intermediate_size",
        "vocab": "vocab_size",
        "layer": "num_layers",
        "position": "max_position_embeddings",
    },
    tensors={
        "wte.weight": "vocab hidden",
        "wpe.weight": "position hidden",
        **norm("h.{layer}.ln_1"),
        "h.{layer}.attn.attention.q_proj.weight": "(head query_dim) /hidden",
        "h.{layer}.attn.attention.k_proj.weight": "(head key_dim) /hidden",
        "h.{layer}.attn.attention.v_proj.weight": "(head value_dim) /hidden",
        **linear("h.{layer}.attn.attention.out_proj", "hidden", "(head value_dim)"),
        **norm("h.{layer}.ln_2"),
        **linear("h.{layer}.mlp.c_fc", "ffn", "hidden"),
        **linear("h.{layer}.mlp.c_proj", "hidden", "ffn"),
        **norm("ln_f", before_head=True),
        "lm_head.weight": "vocab /hidden",
        **task_heads(),
    },
    norms=Norms(kind=LAYER),
    scaled_scores=False,
    windows=AttentionWindows(listed=("attention_layers",), runs="attention_types"),
    embedding="wte.weight",
    heads=("lm_head.weight",),
    tied=True,
    packs=False,
    prefixes=("transformer.",),
    architectures=decoder_classes("GPTNeo", "score.weight", "classifier.weight", "qa_outputs.weight", "*"),
    defaults={"intermediate_size": None},
    small={"window_size": 6, "attention_types": [[["local", "global"], 1], [["local"], 1]]},
    variants=({"intermediate_size": None, "attention_types": [[["global"], 3]]},),
    buffers=("h.{layer}.attn.attention.bias", "h.{layer}.attn.attention.masked_bias"),
)

FAMILIES = (GPT_NEO,)
