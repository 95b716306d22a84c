"""Which dense family becomes which mixture of experts, and how names and settings go over. Data only.

A row exists where the sparse class computes, around its experts, exactly what the dense class computes around its
feed-forward layer: same norms, attention, positions and heads, under the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from growkit.errors import RequestError


class FeedForward(NamedTuple):
    """The three tensors of a gated feed-forward block: down(act(gate x) * (up x))."""

    gate: str
    up: str
    down: str


@dataclass(frozen=True, kw_only=True)
class Upcycling:
    """One dense family and the mixture of experts it becomes."""

    source: str  # model_type of the dense family
    target: str  # model_type of the mixture
    dense: FeedForward  # templates of a feed-forward block's tensors in the dense family
    expert: FeedForward  # of an expert's in the mixture
    router: str  # template of what chooses experts
    norm: str  # the module whose output the router reads
    stated: Mapping[str, Any]  # the dense class's defaults that the sparse class fills in otherwise or does not know
    added: Mapping[str, Any]  # settings the sparse class has beside sizes
    dropped: tuple[str, ...] = ()  # settings the sparse class does not have, which must be off
    shared: FeedForward | None = (
        None  # templates of a shared expert's tensors; None: the class has none, else always one
    )
    shared_gate: str = ""  # template of what weighs the shared expert
    all_layers: bool = False  # every layer must have experts
    one_window: bool = False  # its sliding window, if any, is that of all layers
    elsewhere: str = ""  # what another runtime computes otherwise; "": nothing is known
    unlike: tuple[str, ...] = ()  # dense classes whose counterpart has its layers under other names


def _block(place: str, *names: str) -> FeedForward:
    return FeedForward(*(f"layers.{{layer}}.{place}.{name}.weight" for name in names))


_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_COMMON = dict(
    hidden_act="silu", rms_norm_eps=1e-6, attention_dropout=0.0, initializer_range=0.02, tie_word_embeddings=False,
    use_cache=True, pad_token_id=None,
)  # fmt: skip
_NAMED_ENDS = dict(bos_token_id=1, eos_token_id=2)
_NO_ENDS = dict(bos_token_id=None, eos_token_id=None)
_WINDOW = dict(use_sliding_window=False, sliding_window=4096)
_ROUTING: dict[str, Any] = dict(output_router_logits=False, router_aux_loss_coef=0.001)
_QWEN_ROUTING = dict(_ROUTING, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])

_MIXTRAL: dict[str, Any] = dict(
    target="mixtral",
    dense=_block("mlp", *_PROJECTIONS),
    expert=_block("block_sparse_moe.experts.{expert}", "w1", "w3", "w2"),
    router="layers.{layer}.block_sparse_moe.gate.weight",
    norm="layers.{layer}.post_attention_layernorm",
    added=dict(_ROUTING, router_jitter_noise=0.0),
    all_layers=True,
)
_QWEN: dict[str, Any] = dict(
    dense=_block("mlp", *_PROJECTIONS),
    expert=_block("mlp.experts.{expert}", *_PROJECTIONS),
    router="layers.{layer}.mlp.gate.weight",
    norm="layers.{layer}.post_attention_layernorm",
)

ROWS = (
    Upcycling(
        source="llama",
        stated={**_COMMON, **_NAMED_ENDS, "max_position_embeddings": 2048},
        dropped=("attention_bias", "mlp_bias"),
        **_MIXTRAL | {"added": {**_MIXTRAL["added"], "sliding_window": None}},
    ),
    Upcycling(
        source="mistral",
        stated={**_COMMON, **_NAMED_ENDS, "max_position_embeddings": 4096 * 32, "sliding_window": 4096},
        **_MIXTRAL,
    ),
    Upcycling(
        source="qwen2",
        target="qwen2_moe",
        stated={**_COMMON, **_NO_ENDS, **_WINDOW, "max_position_embeddings": 32768, "max_window_layers": 28},
        added=dict(_QWEN_ROUTING, qkv_bias=True),
        shared=_block("mlp.shared_expert", *_PROJECTIONS),
        shared_gate="layers.{layer}.mlp.shared_expert_gate.weight",
        unlike=("Qwen2ForQuestionAnswering",),
        elsewhere=(
            "llama.cpp ignores norm_topk_prob in a qwen2_moe: it leaves the weights of the experts a token takes as the"
            " router gives them, which add up to less than 1, so there it computes another function unless a token takes"
            " all experts; serve it with transformers"
        ),
        **_QWEN,
    ),
    Upcycling(
        source="qwen3",
        target="qwen3_moe",
        stated={**_COMMON, **_NO_ENDS, **_WINDOW, "max_position_embeddings": 32768, "attention_bias": False},
        added=_QWEN_ROUTING,
        dropped=("max_window_layers",),
        one_window=True,
        **_QWEN,
    ),
)


def upcycling_of(label: str, model_type: str) -> Upcycling:
    """The row of a dense family. Raises RequestError for a family that transformers has no such mixture for."""
    for row in ROWS:
        if row.source == model_type:
            return row
    if any(row.target == model_type for row in ROWS):
        raise RequestError(
            f"{label!r} is a mixture of experts already ({model_type}); upcycle takes dense models, and growkit grow"
            " --experts gives a mixture more experts"
        )
    known = ", ".join(f"{row.source} -> {row.target}" for row in ROWS)
    raise RequestError(
        f"{label!r} is a {model_type}, for which transformers has no mixture of experts that computes the same around"
        f" its experts; growkit upcycles {known}"
    )
