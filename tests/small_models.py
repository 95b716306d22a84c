"""Models of every family, written down: configs, names, shapes, and weights that are whole numbers over a power of two.

Nothing here depends on torch, transformers or the processor, so what is grown of them can have digests in a file. A sum
of such weights is exact in float32 in any order.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

LAYERS, EXPERTS = "012", "0123"
BASE = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40)
ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
PART = {**ROPE, "partial_rotary_factor": 0.7}
PLACES = dict(max_position_embeddings=64)
LLAMA = dict(BASE, **PLACES, num_key_value_heads=2, rms_norm_eps=1e-6, hidden_act="silu", rope_parameters=ROPE)
EIGHT = dict(LLAMA, head_dim=8)
GEMMA = {k: v for k, v in EIGHT.items() if k != "hidden_act"}
MOE = dict(num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=True)

CONFIGS: dict[str, dict[str, Any]] = {  # what every family has is added below
    "bert": dict(BASE, **PLACES, layer_norm_eps=1e-12, hidden_act="gelu", type_vocab_size=2, tie_word_embeddings=True),
    "roberta": dict(
        BASE, max_position_embeddings=66, pad_token_id=1, layer_norm_eps=1e-12, hidden_act="gelu", type_vocab_size=2
    )
    | dict(tie_word_embeddings=True),
    "distilbert": dict(dim=24, n_layers=3, n_heads=4, hidden_dim=40, activation="gelu", tie_word_embeddings=True)
    | PLACES,
    "gpt2": dict(n_embd=24, n_layer=3, n_head=4, n_positions=64, layer_norm_epsilon=1e-5, tie_word_embeddings=True),
    "gpt_neox": dict(BASE, **PLACES, layer_norm_eps=1e-5, use_parallel_residual=True, rope_parameters=PART),
    "opt": dict(hidden_size=24, word_embed_proj_dim=24, ffn_dim=40, num_hidden_layers=3, num_attention_heads=4)
    | dict(do_layer_norm_before=True, tie_word_embeddings=True, **PLACES),
    "llama": dict(LLAMA, head_dim=6, attention_bias=True, mlp_bias=True),
    "mistral": dict(LLAMA, head_dim=6, sliding_window=6),
    "qwen2": dict(LLAMA, use_sliding_window=False, sliding_window=None, layer_types=["full_attention"] * 3),
    "qwen3": dict(EIGHT, attention_bias=True, layer_types=["full_attention"] * 3),
    "gemma": dict(EIGHT, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True),
    "gemma2": dict(GEMMA, hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=12, tie_word_embeddings=True)
    | dict(layer_types=["sliding_attention", "full_attention", "sliding_attention"], sliding_window=6),
    "olmo2": LLAMA,
    "phi": dict(BASE, **PLACES, num_key_value_heads=2, layer_norm_eps=1e-5, qk_layernorm=False, rope_parameters=PART),
    "mixtral": dict(LLAMA, num_local_experts=4, num_experts_per_tok=2, sliding_window=6),
    "qwen2_moe": dict(LLAMA, **MOE, num_experts=4, shared_expert_intermediate_size=12, mlp_only_layers=[1]),
    "qwen3_moe": dict(
        EIGHT, **MOE, num_local_experts=4, attention_bias=True, decoder_sparse_step=2, mlp_only_layers=[]
    ),
}

# Modules, each with the shape of its weight and, after +, of its bias. # is a layer (or those named), % an expert.
HEADED = "model.embed_tokens 61x24; lm_head 61x24; model.norm 24"
NORMS = "model.layers.#.input_layernorm 24; model.layers.#.post_attention_layernorm 24"
SANDWICH = "model.layers.#.post_attention_layernorm 24; model.layers.#.post_feedforward_layernorm 24"
MLP = "model.layers.#.mlp.gate_proj 40x24; model.layers.#.mlp.up_proj 40x24; model.layers.#.mlp.down_proj 24x40"
ATTENTION = "model.layers.#.self_attn.q_proj 24x24; model.layers.#.self_attn.o_proj 24x24"
ATTENTION += "; model.layers.#.self_attn.k_proj 12x24; model.layers.#.self_attn.v_proj 12x24"
WIDE = "model.layers.#.self_attn.q_proj 32x24; model.layers.#.self_attn.o_proj 24x32"
WIDE += "; model.layers.#.self_attn.k_proj 16x24; model.layers.#.self_attn.v_proj 16x24"
BIASES = "model.layers.#.self_attn.q_proj +24; model.layers.#.self_attn.k_proj +12; model.layers.#.self_attn.v_proj +12"
WIDE_BIASES = "model.layers.#.self_attn.q_proj +32; model.layers.#.self_attn.k_proj +16"
WIDE_BIASES += "; model.layers.#.self_attn.v_proj +16; model.layers.#.self_attn.o_proj +24"
HEAD_NORMS = "model.layers.#.self_attn.q_norm 8; model.layers.#.self_attn.k_norm 8"
SPARSE = "model.layers.#.mlp.gate 4x24; model.layers.#.mlp.experts.%.gate_proj 20x24"
SPARSE += "; model.layers.#.mlp.experts.%.up_proj 20x24; model.layers.#.mlp.experts.%.down_proj 24x20"
SHARED = "model.layers.#.mlp.shared_expert.gate_proj 12x24; model.layers.#.mlp.shared_expert.up_proj 12x24"
SHARED += "; model.layers.#.mlp.shared_expert.down_proj 24x12; model.layers.#.mlp.shared_expert_gate 1x24"
LAYER = "X.encoder.layer.#"
ENCODER = f"""
    X.embeddings.word_embeddings 61x24; X.embeddings.token_type_embeddings 2x24; X.embeddings.LayerNorm 24+24
    {LAYER}.attention.self.query 24x24+24; {LAYER}.attention.self.key 24x24+24; {LAYER}.attention.self.value 24x24+24
    {LAYER}.attention.output.dense 24x24+24; {LAYER}.attention.output.LayerNorm 24+24
    {LAYER}.intermediate.dense 40x24+40; {LAYER}.output.dense 24x40+24; {LAYER}.output.LayerNorm 24+24"""
MODULES = {
    "bert": ENCODER.replace("X.", "bert.")
    + "; bert.embeddings.position_embeddings 64x24; cls.predictions +61; cls.predictions.transform.LayerNorm 24+24"
    + "; cls.predictions.transform.dense 24x24+24",
    "roberta": ENCODER.replace("X.", "roberta.")
    + "; roberta.embeddings.position_embeddings 66x24; lm_head +61; lm_head.dense 24x24+24; lm_head.layer_norm 24+24",
    "distilbert": """
        X.embeddings.word_embeddings 61x24; X.embeddings.position_embeddings 64x24; X.embeddings.LayerNorm 24+24
        X.transformer.layer.#.attention.q_lin 24x24+24; X.transformer.layer.#.attention.k_lin 24x24+24
        X.transformer.layer.#.attention.v_lin 24x24+24; X.transformer.layer.#.attention.out_lin 24x24+24
        X.transformer.layer.#.ffn.lin1 40x24+40; X.transformer.layer.#.ffn.lin2 24x40+24
        X.transformer.layer.#.sa_layer_norm 24+24; X.transformer.layer.#.output_layer_norm 24+24
        vocab_transform 24x24+24; vocab_layer_norm 24+24; vocab_projector +61""".replace("X.", "distilbert."),
    "gpt2": """
        transformer.wte 61x24; transformer.wpe 64x24; transformer.ln_f 24+24
        transformer.h.#.ln_1 24+24; transformer.h.#.ln_2 24+24; transformer.h.#.attn.c_attn 24x72+72
        transformer.h.#.attn.c_proj 24x24+24; transformer.h.#.mlp.c_fc 24x96+96; transformer.h.#.mlp.c_proj 96x24+24""",
    "gpt_neox": """
        gpt_neox.embed_in 61x24; embed_out 61x24; gpt_neox.final_layer_norm 24+24
        gpt_neox.layers.#.input_layernorm 24+24; gpt_neox.layers.#.post_attention_layernorm 24+24
        gpt_neox.layers.#.attention.query_key_value 72x24+72; gpt_neox.layers.#.attention.dense 24x24+24
        gpt_neox.layers.#.mlp.dense_h_to_4h 40x24+40; gpt_neox.layers.#.mlp.dense_4h_to_h 24x40+24""",
    "opt": """
        model.decoder.embed_tokens 61x24; model.decoder.embed_positions 66x24; model.decoder.final_layer_norm 24+24
        model.decoder.layers.#.self_attn.q_proj 24x24+24; model.decoder.layers.#.self_attn.k_proj 24x24+24
        model.decoder.layers.#.self_attn.v_proj 24x24+24; model.decoder.layers.#.self_attn.out_proj 24x24+24
        model.decoder.layers.#.self_attn_layer_norm 24+24; model.decoder.layers.#.final_layer_norm 24+24
        model.decoder.layers.#.fc1 40x24+40; model.decoder.layers.#.fc2 24x40+24""",
    "llama": f"{HEADED}; {NORMS}; {MLP}; {ATTENTION}; {BIASES}; model.layers.#.self_attn.o_proj +24"
    "; model.layers.#.mlp.gate_proj +40; model.layers.#.mlp.up_proj +40; model.layers.#.mlp.down_proj +24",
    "mistral": f"{HEADED}; {NORMS}; {MLP}; {ATTENTION}",
    "qwen2": f"{HEADED}; {NORMS}; {MLP}; {ATTENTION}; {BIASES}",
    "qwen3": f"{HEADED}; {NORMS}; {MLP}; {WIDE}; {WIDE_BIASES}; {HEAD_NORMS}",
    "gemma": f"model.embed_tokens 61x24; model.norm 24; {NORMS}; {MLP}; {WIDE}",
    "gemma2": f"model.embed_tokens 61x24; model.norm 24; model.layers.#.input_layernorm 24; {SANDWICH}; {MLP}; {WIDE}"
    "; model.layers.#.pre_feedforward_layernorm 24",
    "olmo2": f"{HEADED}; {SANDWICH}; {MLP}; {ATTENTION}; model.layers.#.self_attn.q_norm 24"
    "; model.layers.#.self_attn.k_norm 12",
    "phi": f"""
        model.embed_tokens 61x24; lm_head 61x24+61; model.final_layernorm 24+24; {BIASES}
        model.layers.#.input_layernorm 24+24; {ATTENTION.replace("o_proj 24x24", "dense 24x24+24")}
        model.layers.#.mlp.fc1 40x24+40; model.layers.#.mlp.fc2 24x40+24""",
    "mixtral": f"{HEADED}; {NORMS}; {ATTENTION}; model.layers.#.block_sparse_moe.gate 4x24"
    "; model.layers.#.block_sparse_moe.experts.%.w1 40x24; model.layers.#.block_sparse_moe.experts.%.w2 24x40"
    "; model.layers.#.block_sparse_moe.experts.%.w3 40x24",
    "qwen2_moe": f"{HEADED}; {NORMS}; {ATTENTION}; {BIASES}; {MLP.replace('#', '#1')}"
    f"; {SPARSE.replace('#', '#02')}; {SHARED.replace('#', '#02')}",
    "qwen3_moe": f"{HEADED}; {NORMS}; {WIDE}; {WIDE_BIASES}; {HEAD_NORMS}; {MLP.replace('#', '#02')}"
    f"; {SPARSE.replace('#', '#1')}",
}
STEMS = dict(
    bert="Bert", roberta="Roberta", distilbert="DistilBert", gpt2="GPT2", gpt_neox="GPTNeoX", opt="OPT", llama="Llama",
    mistral="Mistral", qwen2="Qwen2", qwen3="Qwen3", gemma="Gemma", gemma2="Gemma2", olmo2="Olmo2", phi="Phi",
    mixtral="Mixtral", qwen2_moe="Qwen2Moe", qwen3_moe="Qwen3Moe",
)  # fmt: skip


def shapes(family: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor, as a file has them."""
    for module in re.split(r"[;\n]", MODULES[family].strip()):
        stem, sizes = module.split()
        weight, _, bias = sizes.partition("+")
        layers = re.search(r"#(\d*)", stem)
        for layer in (layers[1] or LAYERS) if layers else "-":
            for expert in EXPERTS if "%" in stem else "-":
                name = re.sub(r"#\d*", layer, stem).replace("%", expert)
                if weight:
                    yield f"{name}.weight", tuple(int(size) for size in weight.split("x"))
                if bias:
                    yield f"{name}.bias", (int(bias),)


def small_model(folder: Path, family: str, seed: int = 0, near: int | None = None) -> Path:
    """Write a model. near: the seed of a model that it lies a little way off, as if it were fine-tuned from that."""
    folder.mkdir(parents=True)
    kind = "MaskedLM" if family in ("bert", "roberta", "distilbert") else "CausalLM"
    architecture = STEMS[family] + ("LMHeadModel" if family == "gpt2" else f"For{kind}")
    config = {"architectures": [architecture], "dtype": "float32", "model_type": family, "tie_word_embeddings": False}
    config |= {"vocab_size": 61, **CONFIGS[family]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    named = sorted(shapes(family))
    weights = _weights(named, seed, 12) if near is None else _weights(named, near, 12)
    if near is not None:
        weights = {name: weights[name] + step for name, step in _weights(named, seed, 18).items()}
    for name, weight in weights.items():
        if weight.ndim == 1 and name.endswith("weight"):
            weight += 1  # a gain
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def _weights(named: list[tuple[str, tuple[int, ...]]], seed: int, bits: int) -> dict[str, np.ndarray]:
    """Whole numbers from -2048 to 2047 over 2**bits, from the generator's own bits, which numpy promises to keep."""
    stream = np.random.PCG64(seed)
    drawn = {name: (stream.random_raw(int(np.prod(shape))) >> np.uint64(52)).reshape(shape) for name, shape in named}
    return {name: ((words.astype(np.int64) - 2048) / 2**bits).astype(np.float32) for name, words in drawn.items()}
