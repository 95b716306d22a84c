"""Floating-point operations a step executes. Knows counting rules; ignorant of time.

Per token, with P matrix weights in a layer, P_head in the head, A = heads * head size * length for attention scores:

    depth * (2 P + 4 A)  +  trained * (4 P + 8 A)  +  6 P_head

of a mixture's experts only those a token takes, and layers that are passed again and again that often; that is the
forward pass of a prefix, the backward pass of the layers that learn, the head both ways (PaLM arXiv 2204.02311 appendix
B, for all layers). Of the backward pass half is for what reaches the layer below and half for a weight's own gradient,
which one that is frozen does not have; below the lowest parameter that learns there is none. Recomputed activations and
the optimizer are not counted.
"""

from dataclasses import dataclass
from typing import Any

from growkit.families import family_named
from growkit.models.live_layers import layers_of
from growkit.training.routing import experts_of


def step_flops(model: Any, tokens: int, length: int, depth: int, trained: int) -> float:
    """Operations of one training step over `tokens` tokens in sequences of `length`.

    depth may be more than the model has layers, which then repeat: a model that is going to be stacked.
    """
    layers, head, scores = _sizes(model, length)
    run = [layers[number % len(layers)] for number in range(depth)]
    passed = run[depth - trained :]
    if not (trained == depth and model.get_input_embeddings().weight.requires_grad):
        passed = passed[next((n for n, layer in enumerate(passed) if layer.learns), len(passed)) :]
    forward, backward = sum(layer.weights for layer in run), sum(layer.weights + layer.learning for layer in passed)
    ours = (4.0 * depth + 8.0 * len(passed)) * scores + 4.0 * head.weights + 2.0 * head.learning
    return tokens * (2.0 * forward + 2.0 * backward + ours)


def forward_flops(model: Any, tokens: int, length: int) -> float:
    """Operations of a forward pass alone, such as a teacher's."""
    layers, head, scores = _sizes(model, length)
    weights = sum(layer.weights for layer in layers)
    return tokens * (2.0 * weights + 4.0 * len(layers) * scores + 2.0 * head.weights)


@dataclass(frozen=True)
class _Size:
    """Matrix weights that a token passes in a layer or in the head, and how many of them learn; learns: whether
    anything there does, vectors too."""

    weights: float
    learning: float
    learns: bool


def _sizes(model: Any, length: int) -> tuple[list[_Size], _Size, float]:
    """(each layer, the head, entries of attention scores)."""
    config = model.config
    family = family_named(config.model_type)
    share = getattr(config, family.experts.top_k) / experts_of(model) if family.is_moe else 1.0
    head = model.get_output_embeddings()
    own = layers_of(model)
    times = getattr(config, family.passes) / len(own) if family.passes else 1.0
    layers = [_size(list(layer.parameters()), share, times) for layer in own]
    output = _size([head.weight] if head is not None else [], share)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return layers, output, times * config.num_attention_heads * size * length


def _size(parameters: list[Any], share: float, times: float = 1.0) -> _Size:
    """share: of experts, the part that a token takes; what is stacked over experts has three dimensions. times: how
    often a token passes these."""
    counts = [
        (p.numel() * times * (share if p.dim() == 3 else 1.0), p.requires_grad) for p in parameters if p.dim() > 1
    ]
    return _Size(
        float(sum(count for count, _ in counts)),
        float(sum(count for count, learns in counts if learns)),
        any(p.requires_grad for p in parameters),
    )
