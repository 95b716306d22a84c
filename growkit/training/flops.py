"""Floating-point operations a step executes. Knows counting rules; ignorant of time.

Per token, with P matrix weights in a layer, P_head in the head, A = heads * head size * length for attention scores:

    depth * (2 P + 4 A)  +  trained * (4 P + 8 A)  +  6 P_head

that is the forward pass of a prefix, the backward pass of the layers that learn, the head both ways (PaLM arXiv 2204.02311
appendix B, for all layers). Recomputed activations and the optimizer are not counted.
"""

from typing import Any

from growkit.training.submodel import layers_of


def step_flops(model: Any, tokens: int, length: int, depth: int, trained: int) -> float:
    """Operations of one training step over `tokens` tokens in sequences of `length`."""
    layer, head, scores = _sizes(model, length)
    return tokens * (depth * (2.0 * layer + 4.0 * scores) + trained * (4.0 * layer + 8.0 * scores) + 6.0 * head)


def forward_flops(model: Any, tokens: int, length: int) -> float:
    """Operations of a forward pass alone, such as a teacher's."""
    layer, head, scores = _sizes(model, length)
    return tokens * (len(layers_of(model)) * (2.0 * layer + 4.0 * scores) + 2.0 * head)


def _sizes(model: Any, length: int) -> tuple[float, float, float]:
    layers = layers_of(model)
    layer = sum(p.numel() for p in layers[0].parameters() if p.dim() > 1)
    head = model.get_output_embeddings()
    output = head.weight.numel() if head is not None else 0
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(layer), float(output), float(config.num_attention_heads * size * length)
