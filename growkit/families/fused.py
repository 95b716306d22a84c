"""Decoders whose queries, keys and values are one projection: Phi-3, GPT-BigCode, BLOOM, MPT, Falcon. Data only."""

from dataclasses import replace

from growkit.families.gpt import GPT2
from growkit.families.llama import OUTSIDE, llama_like
from growkit.families.modules import decoder_classes, linear, norm, task_heads
from growkit.families.schema import LAYER, Family, Norms, Rotary

# so much of each for every kv head: one for all heads, one for a group of them, or one for each
ALL_HEADS = "(head query_dim | kv_head key_dim | kv_head value_dim)"
EACH_KV_HEAD = "(kv_head: head query_dim | kv_head key_dim | kv_head value_dim)"

SLOPES = "the slopes of its positions (ALiBi) depend on the number of heads"

PHI3 = llama_like(
    "phi3",
    "Phi3",
    {
        **OUTSIDE,
        "layers.{layer}.self_attn.qkv_proj.weight": f"{ALL_HEADS} /hidden",
        "layers.{layer}.self_attn.o_proj.weight": "hidden /(head value_dim)",
        "layers.{layer}.mlp.gate_up_proj.weight": "(ffn | ffn) /hidden",
        "layers.{layer}.mlp.down_proj.weight": "hidden /ffn",
    },
    switches={},
)

GPT_BIGCODE = replace(
    GPT2,
    model_type="gpt_bigcode",
    tensors={
        **GPT2.tensors,
        **linear("h.{layer}.attn.c_attn", EACH_KV_HEAD, "hidden"),
        **linear("h.{layer}.attn.c_proj", "hidden", "(head value_dim)"),
        **linear("h.{layer}.mlp.c_fc", "ffn", "hidden"),
        **linear("h.{layer}.mlp.c_proj", "hidden", "ffn"),
    },
    architectures=decoder_classes("GPTBigCode", "score.weight", "classifier.weight", "", "*"),
    one_kv_head={"multi_query": True},
    defaults={"n_inner": None, "scale_attn_weights": True, "multi_query": True},
    by_number=(),
    small={},
    variants=({"multi_query": False}, {"scale_attn_weights": False}),
)

# what BLOOM and Falcon have behind a layer's first norm
_BEHIND_NORM = {
    **linear("h.{layer}.self_attention.query_key_value", EACH_KV_HEAD, "hidden"),
    **linear("h.{layer}.self_attention.dense", "hidden", "(head value_dim)"),
    **norm("h.{layer}.post_attention_layernorm"),
    **linear("h.{layer}.mlp.dense_h_to_4h", "ffn", "hidden"),
    **linear("h.{layer}.mlp.dense_4h_to_h", "hidden", "ffn"),
    **norm("ln_f", before_head=True),
    "lm_head.weight": "vocab /hidden",
    **task_heads(),
}

BLOOM = Family(
    model_type="bloom",
    sizes={"hidden": "hidden_size", "head": "n_head", "vocab": "vocab_size", "layer": "n_layer"},
    tensors={
        "word_embeddings.weight": "vocab hidden",
        **norm("word_embeddings_layernorm", "normed"),
        **norm("h.{layer}.input_layernorm"),
        **_BEHIND_NORM,
    },
    norms=Norms(kind=LAYER),
    embedding="word_embeddings.weight",
    heads=("lm_head.weight",),
    tied=True,
    packs=False,
    prefixes=("transformer.",),
    architectures=decoder_classes("Bloom", "score.weight", "classifier.weight", "qa_outputs.weight", "", "*"),
    refused={"apply_residual_connection_post_layernorm": (False, "the norms in its layers write the stream")},
    forbids={"": ((), ("head",), SLOPES)},
)

MPT = Family(
    model_type="mpt",
    sizes={
        "hidden": "d_model",
        "head": "n_heads",
        "vocab": "vocab_size",
        "layer": "n_layers",
        "position": "max_seq_len",
    },
    tensors={
        "wte.weight": "vocab hidden",
        "blocks.{layer}.norm_1.weight": "~hidden",
        "blocks.{layer}.attn.Wqkv.weight": f"{ALL_HEADS} /hidden",
        "blocks.{layer}.attn.out_proj.weight": "hidden /(head value_dim)",
        "blocks.{layer}.norm_2.weight": "~hidden",
        "blocks.{layer}.ffn.up_proj.weight": "ffn /hidden",
        "blocks.{layer}.ffn.down_proj.weight": "hidden /ffn",
        "norm_f.weight": "~/hidden",
        "lm_head.weight": "vocab /hidden",
        **task_heads(),
    },
    norms=Norms(kind=LAYER),
    embedding="wte.weight",
    heads=("lm_head.weight",),
    tied=True,
    packs=False,
    prefixes=("transformer.",),
    architectures=decoder_classes("Mpt", "score.weight", "classifier.weight", "qa_outputs.weight", "", "*"),
    score_keys={"attn_config.softmax_scale": None},
    defaults={"attn_config.softmax_scale": None, "attn_config.clip_qkv": None},
    forbids={
        "": ((), ("head",), SLOPES),
        "attn_config.clip_qkv": ((None,), ("head_dim",), "queries and keys would be clipped at other values"),
    },
    small={"n_heads": 3},
)

_TWO_NORMS = {"new_decoder_architecture": (True,), "num_ln_in_parallel_attn": (None, 2)}
FALCON = Family(
    model_type="falcon",
    sizes={
        "hidden": "hidden_size",
        "head": "num_attention_heads",
        "kv_head": "num_kv_heads",
        "ffn": "ffn_hidden_size",
        "vocab": "vocab_size",
        "layer": "num_hidden_layers",
        "position": "max_position_embeddings",
    },
    tensors={
        "word_embeddings.weight": "vocab hidden",
        **norm("h.{layer}.input_layernorm"),
        **norm("h.{layer}.ln_attn"),
        **norm("h.{layer}.ln_mlp"),
        **_BEHIND_NORM,
    },
    norms=Norms(kind=LAYER),
    rotary=Rotary(),
    grouped_where={"new_decoder_architecture": True},
    one_kv_head={"multi_query": True},
    stored_where={
        "h.{layer}.input_layernorm.weight": (
            {"new_decoder_architecture": (False,)},
            {"num_ln_in_parallel_attn": (1,)},
        ),
        "h.{layer}.ln_attn.weight": (_TWO_NORMS,),
        "h.{layer}.ln_mlp.weight": (_TWO_NORMS,),
        "h.{layer}.post_attention_layernorm.weight": (
            {"new_decoder_architecture": (False,), "parallel_attn": (False,)},
        ),
    },
    embedding="word_embeddings.weight",
    heads=("lm_head.weight",),
    tied=True,
    prefixes=("transformer.",),
    architectures=decoder_classes("Falcon", "score.weight", "classifier.weight", "qa_outputs.weight", "", "*"),
    forbids={"alibi": ((False,), ("head", "head_dim"), f"{SLOPES}, and their weight on head_dim")},
    switches={"bias": "h.{layer}.mlp.dense_h_to_4h.bias"},
    defaults={
        "num_kv_heads": None,
        "ffn_hidden_size": None,
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_ln_in_parallel_attn": None,
        "parallel_attn": True,
        "alibi": False,
    },
    small={"bias": True, "new_decoder_architecture": True},
    variants=(
        {"new_decoder_architecture": False, "bias": False},
        {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": None},
        {"new_decoder_architecture": False, "parallel_attn": False},
        {"num_ln_in_parallel_attn": 1},
    ),
)

FAMILIES = (PHI3, GPT_BIGCODE, BLOOM, MPT, FALCON)
