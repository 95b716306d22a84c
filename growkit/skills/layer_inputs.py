"""What the linear layers of a live model read of a text, layer by layer in one pass: second moments of inputs. Knows
how a stock model calls its layers; ignorant of what moments are good for.

The hidden states of the whole text wait before a layer while it runs, and go on to the next one. So the model runs
once, and there are moments of one layer in memory at a time.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from growkit.models.live_layers import layers_of
from growkit.models.stock import computing

TOKENS = 4096  # of a batch
Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a layer is called with besides hidden states


class _EnoughError(Exception):
    """The states before the first layer are there."""


class LayerInputs:
    """A text's hidden states before one layer after the other. model: in eval mode; ids: (windows, length); real:
    likewise, False for tokens that count for nothing, as what fills a window up behind its text does."""

    def __init__(self, model: Any, ids: torch.Tensor, tokens: int = TOKENS, real: torch.Tensor | None = None):
        self._model, self._layers, self._next = model, layers_of(model), 0
        model.config.use_cache = False
        self._states: list[torch.Tensor] = []
        self._calls: dict[int, list[Call]] = {}  # of each layer, by how many windows a batch has
        windows = max(1, tokens // ids.shape[1])
        self._real = (torch.ones_like(ids, dtype=torch.bool) if real is None else real).split(windows)
        for batch in ids.split(windows):
            self._begin(batch)

    def moments(self, layer: int, modules: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """E[x x^T] (in, in), float64, of what modules of a layer read; layers, from 0, are asked for in order.

        modules: any name -> that of the live module; moments are by the first.
        """
        assert layer >= self._next, "the states have gone on"
        while self._next < layer:
            self._pass({})
        return self._pass(modules)

    @torch.no_grad()
    def _begin(self, ids: torch.Tensor) -> None:
        """Keep a batch's states before the first layer. How layers are called depends on its shape alone; where that is
        new, the batch runs through all of them."""
        known = len(ids) in self._calls
        calls: list[Call] = []

        def before(_: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if not calls:
                self._states.append(arguments[0] if arguments else keywords["hidden_states"])
            calls.append((arguments[1:], {key: value for key, value in keywords.items() if key != "hidden_states"}))
            if known:
                raise _EnoughError

        with ExitStack() as hooks, computing(type(self._model).__name__):
            for layer in self._layers:
                hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            try:
                self._model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids))
            except _EnoughError:
                return
        self._calls[len(ids)] = calls

    @torch.no_grad()
    def _pass(self, modules: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """Take all states through the next layer."""
        layer, number = self._layers[self._next], self._next
        sums: dict[str, torch.Tensor] = {}

        def read(name: str, inputs: torch.Tensor) -> None:
            rows = inputs.flatten(0, -2)[self._real[place].flatten()]
            sums[name] = sums.get(name, 0) + (rows.T @ rows).double()

        with ExitStack() as hooks, computing(type(self._model).__name__):
            for name, module in modules.items():
                hook = self._model.get_submodule(module).register_forward_pre_hook(
                    lambda _, arguments, name=name: read(name, arguments[0])
                )
                hooks.callback(hook.remove)
            for place, states in enumerate(self._states):
                arguments, keywords = self._calls[len(states)][number]
                output = layer(states, *arguments, **keywords)
                self._states[place] = output[0] if isinstance(output, tuple) else output
        self._next += 1
        tokens = sum(int(real.sum()) for real in self._real)
        return {name: total / tokens for name, total in sums.items()}
