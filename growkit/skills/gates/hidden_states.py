"""What a gate reads of a sequence: the base's own hidden states behind one layer, as one vector. Knows live stock
models; ignorant of skills and of thresholds.

Each sequence is run by itself, without padding, so its vector does not depend on what else is asked at the time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from growkit.models.live_layers import layers_of
from growkit.models.stock import computing
from growkit.training.prefix import submodel


def middle_layer(model: Any) -> int:
    """The layer a gate reads where nobody says which, counted from 1: half of them, rounded up."""
    return (len(layers_of(model)) + 1) // 2


@torch.no_grad()
def pooled_states(
    model: Any,
    sequences: Sequence[torch.Tensor],
    layer: int,
    advance: Callable[[int], None] = lambda _done: None,
) -> torch.Tensor:
    """(sequences, hidden) float32 on the CPU: behind a layer, counted from 1, the mean over a sequence's tokens.
    sequences: token ids (length,), of at least one token each.

    It leaves out the first token, where there are others: it is attention's sink, by far the longest state in
    many models and the same whatever follows. model: the base, with no skill on it. advance: called with 1 for each.
    """
    pooled: list[torch.Tensor] = []

    def read(_module: Any, _inputs: Any, output: Any) -> None:
        states = (output[0] if isinstance(output, tuple) else output)[0].double()
        one = states[1:].mean(0) if len(states) > 1 else states[0]
        pooled.append(one.float().cpu())

    hook = layers_of(model)[layer - 1].register_forward_hook(read)
    training = model.training
    model.eval()
    try:
        with submodel(model, layer, layer), computing(type(model).__name__):
            for ids in sequences:
                model.base_model(input_ids=ids.to(model.device)[None], use_cache=False)
                advance(1)
    finally:
        hook.remove()
        model.train(training)
    return torch.stack(pooled)
