"""Tiny stock models of every family, made on the fly, with every weight, bias and gain far from its default."""

import contextlib
import sys
from types import ModuleType
from unittest import mock

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from growkit.families import FAMILIES
from growkit.families.stacked import join_experts

BASE = dict(vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40)
DECODER = dict(BASE, num_key_value_heads=2, max_position_embeddings=64)
GPT2 = dict(vocab_size=61, n_embd=24, n_layer=3, n_head=4, n_positions=64)
EXPERTS = dict(DECODER, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=True)

CONFIGS = {
    "bert": (transformers.BertConfig, dict(BASE, max_position_embeddings=64)),
    "roberta": (transformers.RobertaConfig, dict(BASE, max_position_embeddings=66)),
    "distilbert": (
        transformers.DistilBertConfig,
        dict(vocab_size=61, dim=24, n_layers=3, n_heads=4, hidden_dim=40, max_position_embeddings=64),
    ),
    "gpt2": (transformers.GPT2Config, GPT2),
    "gpt_neox": (transformers.GPTNeoXConfig, dict(BASE, max_position_embeddings=64, rotary_pct=0.7)),
    "opt": (
        transformers.OPTConfig,
        dict(vocab_size=61, hidden_size=24, word_embed_proj_dim=24, ffn_dim=40, num_hidden_layers=3)
        | dict(num_attention_heads=4, max_position_embeddings=64),
    ),
    "llama": (transformers.LlamaConfig, dict(DECODER, attention_bias=True, mlp_bias=True)),
    "mistral": (transformers.MistralConfig, dict(DECODER, sliding_window=6)),
    "qwen2": (transformers.Qwen2Config, DECODER),
    "qwen3": (transformers.Qwen3Config, dict(DECODER, head_dim=8, attention_bias=True)),
    "gemma": (transformers.GemmaConfig, dict(DECODER, head_dim=8)),
    "gemma2": (transformers.Gemma2Config, dict(DECODER, head_dim=8, query_pre_attn_scalar=12, sliding_window=6)),
    "olmo2": (transformers.Olmo2Config, DECODER),
    "phi": (transformers.PhiConfig, dict(DECODER, partial_rotary_factor=0.7)),
    "mixtral": (transformers.MixtralConfig, dict(DECODER, num_local_experts=4, sliding_window=6)),
    "qwen2_moe": (
        transformers.Qwen2MoeConfig,  # the middle layer has no experts
        dict(EXPERTS, shared_expert_intermediate_size=12, mlp_only_layers=[1]),
    ),
    "qwen3_moe": (
        transformers.Qwen3MoeConfig,  # only the middle layer has
        dict(EXPERTS, head_dim=8, attention_bias=True, decoder_sparse_step=2),
    ),
}
MODERN = dict(
    BASE, max_position_embeddings=64, local_attention=6, norm_bias=True, attention_bias=True, mlp_bias=True
) | (dict(classifier_bias=True, pad_token_id=1, bos_token_id=1, eos_token_id=1, cls_token_id=1, sep_token_id=1))
# families that test_encoders grows, beside those that every test does
MORE = {
    "xlm-roberta": (transformers.XLMRobertaConfig, dict(BASE, max_position_embeddings=66, pad_token_id=1)),
    "camembert": (transformers.CamembertConfig, dict(BASE, max_position_embeddings=66)),
    "data2vec-text": (transformers.Data2VecTextConfig, dict(BASE, max_position_embeddings=66)),
    "xlm-roberta-xl": (transformers.XLMRobertaXLConfig, dict(BASE, max_position_embeddings=66)),
    "electra": (transformers.ElectraConfig, dict(BASE, max_position_embeddings=64, embedding_size=12)),
    "mpnet": (transformers.MPNetConfig, dict(BASE, max_position_embeddings=66)),
    "eurobert": (transformers.EuroBertConfig, dict(DECODER, attention_bias=True, mlp_bias=True, pad_token_id=1)),
    "albert": (transformers.AlbertConfig, dict(BASE, max_position_embeddings=64, embedding_size=12)),
    "deberta-v2": (
        transformers.DebertaV2Config,
        dict(BASE, max_position_embeddings=64, type_vocab_size=2, relative_attention=True, position_buckets=8)
        | dict(norm_rel_ebd="layer_norm", pos_att_type=["c2p", "p2c"], embedding_size=12),
    ),
    "nomic_bert": (transformers.NomicBertConfig, dict(BASE, max_position_embeddings=64)),
    "modernbert": (transformers.ModernBertConfig, MODERN),
    "modernbert-decoder": (transformers.ModernBertDecoderConfig, dict(MODERN, norm_bias=False)),
    "gte": (transformers.GteConfig, dict(BASE, max_position_embeddings=64, type_vocab_size=2)),
}
# decoders that test_shaped grows
SHAPED = {
    "bloom": (transformers.BloomConfig, dict(vocab_size=61, hidden_size=24, n_layer=3, n_head=4)),
    "mpt": (transformers.MptConfig, dict(vocab_size=61, d_model=24, n_layers=3, n_heads=3, max_seq_len=64)),
    "gptj": (transformers.GPTJConfig, dict(GPT2, rotary_dim=4)),
    "codegen": (transformers.CodeGenConfig, dict(GPT2, rotary_dim=4)),
    "glm": (transformers.GlmConfig, dict(DECODER, head_dim=8, pad_token_id=0)),
    "glm4": (transformers.Glm4Config, dict(DECODER, head_dim=8, pad_token_id=0)),
    "phi3": (transformers.Phi3Config, dict(DECODER, pad_token_id=0)),
    "gpt_bigcode": (
        transformers.GPTBigCodeConfig,
        dict(GPT2, n_inner=40),
    ),
    "falcon": (
        transformers.FalconConfig,
        dict(vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, ffn_hidden_size=40, bias=True)
        | dict(new_decoder_architecture=True, num_kv_heads=2),
    ),
}
# mixtures that test_mixtures grows
_DEEP = dict(DECODER, moe_intermediate_size=20, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=2) | dict(
    first_k_dense_replace=1, n_group=2, topk_group=1, routed_scaling_factor=1.7
)
_LATENT = dict(_DEEP, num_key_value_heads=4, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8) | dict(
    kv_lora_rank=12, q_lora_rank=10
)
SPARSE = {
    "olmoe": (transformers.OlmoeConfig, dict(DECODER, num_experts=4, num_experts_per_tok=2)),
    "granitemoe": (
        transformers.GraniteMoeConfig,
        dict(DECODER, num_local_experts=4, embedding_multiplier=3.0, logits_scaling=0.5, residual_multiplier=0.7)
        | dict(attention_multiplier=0.3),
    ),
    "glm4_moe": (transformers.Glm4MoeConfig, dict(_DEEP, head_dim=8, attention_bias=True, use_qk_norm=True)),
    "gpt_oss": (
        transformers.GptOssConfig,
        dict(DECODER, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4, swiglu_limit=0.5),
    ),
    "deepseek_v2": (
        transformers.DeepseekV2Config,
        dict(_LATENT, attention_bias=True, mlp_bias=True, topk_method="group_limited_greedy"),
    ),
    "deepseek_v3": (transformers.DeepseekV3Config, dict(_LATENT, attention_bias=True)),
}
# decoders that test_decoders grows
DECODERS = {
    "granite": (
        transformers.GraniteConfig,
        dict(DECODER, attention_bias=True, mlp_bias=True, attention_multiplier=0.3, embedding_multiplier=3.0)
        | dict(residual_multiplier=0.6, logits_scaling=2.0),
    ),
    "smollm3": (transformers.SmolLM3Config, dict(DECODER, no_rope_layer_interval=2, pad_token_id=0)),
    "starcoder2": (transformers.Starcoder2Config, DECODER),
    "stablelm": (transformers.StableLmConfig, dict(DECODER, partial_rotary_factor=0.7)),
    "olmo": (transformers.OlmoConfig, DECODER),
    "olmo3": (transformers.Olmo3Config, dict(DECODER, sliding_window=6)),
}
# encoder-decoders that test_encoder_decoders grows
SEQUENCES = {
    "t5": (
        transformers.T5Config,
        dict(vocab_size=61, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_decoder_layers=3, num_heads=4),
    ),
}
ALL = {**SEQUENCES, **CONFIGS, **MORE, **SHAPED, **DECODERS, **SPARSE}
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
DENSE = tuple(family for family in CONFIGS if family not in MIXTURES)
ENCODERS = tuple(name for name, family in FAMILIES.items() if not family.causal)
STEMS = dict(
    bert="Bert", roberta="Roberta", distilbert="DistilBert", gpt2="GPT2", gpt_neox="GPTNeoX", opt="OPT", llama="Llama",
    mistral="Mistral", qwen2="Qwen2", qwen3="Qwen3", gemma="Gemma", gemma2="Gemma2", olmo2="Olmo2", phi="Phi",
    granite="Granite", smollm3="SmolLM3", starcoder2="Starcoder2", stablelm="StableLm", olmo="Olmo", olmo3="Olmo3",
    t5="T5", bloom="Bloom", mpt="Mpt", gptj="GPTJ", codegen="CodeGen", glm="Glm", glm4="Glm4", phi3="Phi3", gpt_bigcode="GPTBigCode", falcon="Falcon",
    mixtral="Mixtral", qwen2_moe="Qwen2Moe", qwen3_moe="Qwen3Moe", electra="Electra", mpnet="MPNet",
    eurobert="EuroBert", albert="Albert", camembert="Camembert",
) | {
    "xlm-roberta": "XLMRoberta", "xlm-roberta-xl": "XLMRobertaXL", "data2vec-text": "Data2VecText",
    "olmoe": "Olmoe", "granitemoe": "GraniteMoe", "glm4_moe": "Glm4Moe", "gpt_oss": "GptOss",
    "deepseek_v2": "DeepseekV2", "deepseek_v3": "DeepseekV3",
    "deberta-v2": "DebertaV2", "nomic_bert": "NomicBert", "gte": "Gte", "modernbert": "ModernBert",
    "modernbert-decoder": "ModernBertDecoder",
}  # fmt: skip


def language_model(family: str) -> str:
    """The class with a language-model head."""
    return STEMS[family] + {"gpt2": "LMHeadModel", "t5": "ForConditionalGeneration"}.get(
        family, "ForMaskedLM" if family in ENCODERS else "ForCausalLM"
    )


for _family in ALL:
    getattr(transformers, language_model(_family))  # imports its code now, so that it can be patched below


def shake(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Move every parameter far from its default: gains about 1 with spread, everything else a third of a normal."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        is_gain = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = ((0.8 if is_gain else 0.0) + 0.33 * noise).to(parameter.dtype)
    for name, buffer in model.named_buffers():
        if name.endswith("correction_bias"):  # learned, though no parameter
            buffer.copy_(0.33 * torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
    return model


def make(family: str, architecture: str | None = None, seed: int = 0, dtype=torch.float64, **changes):
    """A shaken tiny model in eval mode; `changes` go into its config."""
    config_class, sizes = ALL[family]
    config = config_class(**{**sizes, **changes})
    model = getattr(transformers, architecture or language_model(family))(config)
    return shake(one_by_one(model).to(dtype), seed).eval()


def one_by_one(model):
    """Let a mixture compute its experts one after another: stock code has no other way in float64."""
    if FAMILIES[model.config.model_type].is_moe:
        model.set_experts_implementation("eager")
    return model


def stored(model, tensors=None) -> dict[str, torch.Tensor]:
    """A model's tensors, or others by the names of its parameters, under the names a file has: each expert's its
    own."""
    tensors = model.state_dict() if tensors is None else tensors
    moe = FAMILIES[model.config.model_type].is_moe
    return revert_weight_conversion(model, dict(tensors)) if moe else dict(tensors)


def rebuild(model, state, config, dtype=torch.float64):
    """The grown model of the same class, with every key matched."""
    grown = one_by_one(type(model)(type(model.config).from_dict(config)).to(dtype).eval())
    state = join_experts(FAMILIES[model.config.model_type], state)
    missing, unexpected = grown.load_state_dict(state, strict=False)
    tied = set(getattr(grown, "all_tied_weights_keys", {}))
    assert not unexpected and set(missing) <= tied, (missing, unexpected)
    grown.tie_weights()
    return grown


def tokens(seed: int = 0, batch: int = 3, length: int = 11, vocabulary: int = 61) -> torch.Tensor:
    """Random token ids, away from the special ones at the start of the vocabulary."""
    return torch.randint(3, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the scale of the reference."""
    return ((a - b).abs().max() / a.abs().max()).item()


class _Double(ModuleType):
    """torch, except that float32 is float64."""

    def __getattr__(self, name: str):
        return torch.float64 if name in ("float32", "float") else getattr(torch, name)


@contextlib.contextmanager
def float32_parts_in_double():
    """Let stock code that computes parts in float32 (norms, softmax, rotary tables) compute them in float64.

    With this, 1e-10 can be asked of every family: what is left is the algebra alone.
    """
    double = _Double("torch")
    modules = [m for n, m in sys.modules.items() if n.startswith("transformers.models.") and ".modeling_" in n]
    modules.append(sys.modules["transformers.modeling_rope_utils"])
    with contextlib.ExitStack() as stack:
        for module in modules:
            if getattr(module, "torch", None) is torch:
                stack.enter_context(mock.patch.object(module, "torch", double))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        yield
