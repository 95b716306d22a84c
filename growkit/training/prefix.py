"""A prefix of a model for one step: its first layers, of which only the top ones learn. Knows live models; ignorant of
losses and of who wants a prefix.

bert2BERT's first stage (arXiv 2110.07143, algorithm 2) trains prefixes that share the output head. What lies below the
layers that learn runs without a graph, so it costs no memory and no backward pass; a tied embedding then learns through
the head alone, an untied one not at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from growkit.models.live_layers import layers_of, layers_path


@contextmanager
def submodel(model: Any, depth: int, trained: int) -> Iterator[None]:
    """Within the block, `model` has its first `depth` layers, and only the top `trained` of them and what follows
    learn.

    depth: 1 to the number of layers. trained: 1 to depth. With all layers learning this is the model as it is.
    """
    layers = layers_of(model)
    whole = len(layers)
    if not 1 <= trained <= depth <= whole:
        raise ValueError(f"a prefix of {depth} of {whole} layers cannot train {trained}")
    if trained == whole:
        yield
        return
    home, _, name = layers_path(model).rpartition(".")
    owner = model.base_model.get_submodule(home)
    before = torch.is_grad_enabled()
    hooks = [
        model.base_model.register_forward_pre_hook(lambda *_: torch.set_grad_enabled(False) and None),
        layers[depth - trained].register_forward_pre_hook(lambda *_: torch.set_grad_enabled(before) and None),
    ]
    setattr(owner, name, layers[:depth])
    try:
        yield
    finally:
        setattr(owner, name, layers)
        torch.set_grad_enabled(before)
        for hook in hooks:
            hook.remove()
