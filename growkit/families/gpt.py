"""GPT-2, GPT-NeoX, OPT and Phi: pre-LayerNorm decoders. Data only."""

from dataclasses import replace

from growkit.families.keys import Both
from growkit.families.modules import conv1d, decoder_classes, linear, norm, task_heads
from growkit.families.schema import LAYER, Family, Norms, Positions, Rotary

EACH_HEAD = "(head: head query_dim | head key_dim | head value_dim)"  # of each head its query, its key and its value

GPT2 = Family(
    model_type="gpt2",
    sizes={
        "hidden": "n_embd",
        "head": "n_head",
        "ffn": "n_inner",
        "vocab": "vocab_size",
        "layer": "n_layer",
        "position": "n_positions",
    },
    tensors={
        "wte.weight": "vocab hidden",
        "wpe.weight": "position hidden",
        **norm("h.{layer}.ln_1"),
        **conv1d("h.{layer}.attn.c_attn", "(head query_dim | head key_dim | head value_dim)", "hidden"),
        **conv1d("h.{layer}.attn.c_proj", "hidden", "(head value_dim)"),
        **norm("h.{layer}.ln_2"),
        **conv1d("h.{layer}.mlp.c_fc", "ffn", "hidden"),
        **conv1d("h.{layer}.mlp.c_proj", "hidden", "ffn"),
        **norm("ln_f", before_head=True),
        "lm_head.weight": "vocab /hidden",
        **task_heads(),
    },
    norms=Norms(kind=LAYER),
    embedding="wte.weight",
    heads=("lm_head.weight",),
    tied=True,
    prefixes=("transformer.",),
    architectures=(
        ("score.weight", "GPT2ForSequenceClassification"),
        ("classifier.weight", "GPT2ForTokenClassification"),
        ("qa_outputs.weight", "GPT2ForQuestionAnswering"),
        ("*", "GPT2LMHeadModel"),
    ),
    score_keys={"scale_attn_weights": False},
    defaults={"n_inner": None, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    buffers=("h.{layer}.attn.bias", "h.{layer}.attn.masked_bias"),
    by_number=("scale_attn_by_inverse_layer_idx",),
    refused={"add_cross_attention": (False, "its cross-attention reads another model's hidden axis")},
    small={"n_inner": None},
    variants=({"n_inner": 40}, {"scale_attn_weights": False}),
)

GPT_NEOX = Family(
    model_type="gpt_neox",
    sizes={
        "hidden": "hidden_size",
        "head": "num_attention_heads",
        "ffn": "intermediate_size",
        "vocab": "vocab_size",
        "layer": "num_hidden_layers",
        "position": "max_position_embeddings",
    },
    tensors={
        "embed_in.weight": "vocab hidden",
        **norm("layers.{layer}.input_layernorm"),
        **linear("layers.{layer}.attention.query_key_value", EACH_HEAD, "hidden"),
        **linear("layers.{layer}.attention.dense", "hidden", "(head value_dim)"),
        **norm("layers.{layer}.post_attention_layernorm"),
        **linear("layers.{layer}.mlp.dense_h_to_4h", "ffn", "hidden"),
        **linear("layers.{layer}.mlp.dense_4h_to_h", "hidden", "ffn"),
        **norm("final_layer_norm", before_head=True),
        "embed_out.weight": "vocab /hidden",
        "lm_head.weight": "vocab /hidden",  # the same head as a live model names it
        **task_heads(),
    },
    norms=Norms(kind=LAYER),
    rotary=Rotary(fraction=0.25, fraction_key="rotary_pct", base_key="rotary_emb_base"),
    embedding="embed_in.weight",
    heads=("embed_out.weight", "lm_head.weight"),
    tied=False,
    prefixes=("gpt_neox.",),
    architectures=decoder_classes(
        "GPTNeoX",
        "score.weight",
        "classifier.weight",
        "qa_outputs.weight",
        "embed_out.weight",
        "lm_head.weight",
        "",
        "*",
    ),
    buffers=(
        "layers.{layer}.attention.bias",
        "layers.{layer}.attention.masked_bias",
        "layers.{layer}.attention.rotary_emb.inv_freq",
    ),
    small={"rotary_pct": 0.7},
    variants=({"use_parallel_residual": False, "attention_bias": False}, {"rotary_pct": 1.0}),
)

OPT = Family(
    model_type="opt",
    sizes={
        "hidden": Both("hidden_size", "word_embed_proj_dim"),
        "head": "num_attention_heads",
        "ffn": "ffn_dim",
        "vocab": "vocab_size",
        "layer": "num_hidden_layers",
        "position": "max_position_embeddings",
    },
    tensors={
        "decoder.embed_tokens.weight": "vocab hidden",
        "decoder.embed_positions.weight": "position hidden",
        **norm("decoder.layers.{layer}.self_attn_layer_norm"),
        **linear("decoder.layers.{layer}.self_attn.q_proj", "(head query_dim)", "hidden"),
        **linear("decoder.layers.{layer}.self_attn.k_proj", "(head key_dim)", "hidden"),
        **linear("decoder.layers.{layer}.self_attn.v_proj", "(head value_dim)", "hidden"),
        **linear("decoder.layers.{layer}.self_attn.out_proj", "hidden", "(head value_dim)"),
        **norm("decoder.layers.{layer}.final_layer_norm"),
        **linear("decoder.layers.{layer}.fc1", "ffn", "hidden"),
        **linear("decoder.layers.{layer}.fc2", "hidden", "ffn"),
        **norm("decoder.final_layer_norm", before_head=True),
        "lm_head.weight": "vocab /hidden",
        **task_heads(),
    },
    norms=Norms(kind=LAYER),
    embedding="decoder.embed_tokens.weight",
    heads=("lm_head.weight",),
    tied=True,
    packs=False,
    positions=Positions(extra_rows=2),
    prefixes=("model.",),
    architectures=decoder_classes("OPT", "score.weight", "qa_outputs.weight", "*"),
    buffers=("decoder.version",),
    refused={
        "do_layer_norm_before": (True, "with norms after each block no norm stands before its tied head to correct it"),
        "_remove_final_layer_norm": (False, "its tied head has no norm before it that could carry the correction"),
        "layer_norm_elementwise_affine": (True, "norms without gains cannot carry the tied head's correction"),
    },
    variants=({"enable_bias": False},),
)

PHI = Family(
    model_type="phi",
    sizes={
        "hidden": "hidden_size",
        "head": "num_attention_heads",
        "kv_head": "num_key_value_heads",
        "head_dim": "head_dim",
        "ffn": "intermediate_size",
        "vocab": "vocab_size",
        "layer": "num_hidden_layers",
        "position": "max_position_embeddings",
    },
    tensors={
        "embed_tokens.weight": "vocab hidden",
        **norm("layers.{layer}.input_layernorm"),
        **linear("layers.{layer}.self_attn.q_proj", "(head query_dim)", "hidden"),
        **linear("layers.{layer}.self_attn.k_proj", "(kv_head key_dim)", "hidden"),
        **linear("layers.{layer}.self_attn.v_proj", "(kv_head value_dim)", "hidden"),
        **linear("layers.{layer}.self_attn.dense", "hidden", "(head value_dim)"),
        **linear("layers.{layer}.mlp.fc1", "ffn", "hidden"),
        **linear("layers.{layer}.mlp.fc2", "hidden", "ffn"),
        **norm("final_layernorm", before_head=True),
        **linear("lm_head", "vocab", "hidden"),
        **task_heads(),
    },
    norms=Norms(kind=LAYER),
    rotary=Rotary(fraction=0.5),
    defaults={"head_dim": None, "num_key_value_heads": None},
    own_head_dim=True,
    hidden_by_heads=False,
    embedding="embed_tokens.weight",
    heads=("lm_head.weight",),
    tied=False,
    prefixes=("model.",),
    architectures=decoder_classes("Phi", "score.weight", "lm_head.weight", "", "*"),
    buffers=("layers.{layer}.self_attn.rotary_emb.inv_freq",),
    refused={"qk_layernorm": (False, "no published Phi checkpoint has query and key LayerNorms to check against")},
    small={"partial_rotary_factor": 0.7},
    variants=({"partial_rotary_factor": 1.0, "head_dim": 8},),
)

BIOGPT = replace(
    OPT,
    model_type="biogpt",
    sizes={**OPT.sizes, "hidden": "hidden_size", "ffn": "intermediate_size"},
    tensors={
        name.removeprefix("decoder.").replace("lm_head", "output_projection"): axes
        for name, axes in OPT.tensors.items()
        if not name.startswith(("decoder.final_layer_norm", "qa_outputs", "lm_head"))
    }
    | norm("layer_norm", before_head=True)
    | {"output_projection.weight": "vocab /hidden"},
    embedding="embed_tokens.weight",
    heads=("output_projection.weight",),
    embedding_scaled=True,
    prefixes=("biogpt.",),
    architectures=decoder_classes("BioGpt", "score.weight", "classifier.weight", "", "*"),
    defaults={},
    refused={"scale_embedding": (True, "growkit's embeddings of it are scaled by sqrt(hidden)")},
    variants=(),
)
XGLM = replace(
    BIOGPT,
    model_type="xglm",
    sizes={"hidden": "d_model", "head": "attention_heads", "ffn": "ffn_dim", "vocab": "vocab_size", "layer": "num_layers",
           "position": "max_position_embeddings"},
    tensors={
        name.replace("output_projection", "lm_head"): axes
        for name, axes in BIOGPT.tensors.items()
        if not name.startswith(("embed_positions", "score", "classifier"))
    },
    heads=("lm_head.weight",),
    positions=Positions(),
    forbids={"": ((), ("hidden",), "its sinusoidal positions are made for one width, and those of another are others")},
    refused={**BIOGPT.refused, "add_cross_attention": (False, "its cross-attention reads another model's hidden axis")},
    prefixes=("model.",),
    architectures=decoder_classes("XGLM", "", "*"),
)  # fmt: skip

FAMILIES = (GPT2, GPT_NEOX, OPT, BIOGPT, XGLM, PHI)
