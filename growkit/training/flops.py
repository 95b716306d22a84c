"""Floating-point operations a step executes. Knows counting rules; ignorant of time.

Per token, with P matrix weights in a layer, P_head in the head, A = heads * head size * length for attention scores:

    depth * (2 P + 4 A)  +  trained * (4 P + 8 A)  +  6 P_head

of a mixture's experts only those a token takes; that is the forward pass of a prefix, the backward pass of the layers
that learn, the head both ways (PaLM arXiv 2204.02311 appendix B, for all layers). Recomputed activations and the
optimizer are not counted.
"""

from typing import Any

from growkit.families import family_named
from growkit.training.prefix import layers_of
from growkit.training.routing import experts_of


def step_flops(model: Any, tokens: int, length: int, depth: int, trained: int) -> float:
    """Operations of one training step over `tokens` tokens in sequences of `length`.

    depth may be more than the model has layers, which then repeat: a model that is going to be stacked.
    """
    layers, head, scores = _sizes(model, length)
    run = [layers[number % len(layers)] for number in range(depth)]
    learning = run[depth - trained :]
    return tokens * (2.0 * sum(run) + 4.0 * sum(learning) + (4.0 * depth + 8.0 * trained) * scores + 6.0 * head)


def forward_flops(model: Any, tokens: int, length: int) -> float:
    """Operations of a forward pass alone, such as a teacher's."""
    layers, head, scores = _sizes(model, length)
    return tokens * (2.0 * sum(layers) + 4.0 * len(layers) * scores + 2.0 * head)


def _sizes(model: Any, length: int) -> tuple[list[float], float, float]:
    """(matrix weights that a token passes in each layer, those of the head, entries of attention scores)."""
    config = model.config
    family = family_named(config.model_type)
    share = getattr(config, family.experts.top_k) / experts_of(model) if family.is_moe else 1.0
    layers = [
        # what is stacked over experts has three dimensions
        sum(p.numel() * (share if p.dim() == 3 else 1.0) for p in layer.parameters() if p.dim() > 1)
        for layer in layers_of(model)
    ]
    head = model.get_output_embeddings()
    output = head.weight.numel() if head is not None else 0
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return layers, float(output), float(config.num_attention_heads * size * length)
