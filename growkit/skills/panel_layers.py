"""Which modules of a live model a panel's weights are in. Knows both kinds of names; ignorant of what is put there."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from growkit.errors import RequestError
from growkit.families import family_named
from growkit.models.small.targets import linear_layers
from growkit.training.blank import pieces_of


@dataclass(frozen=True)
class PanelLayer:
    """A weight of a checkpoint, and the linear layer of the live model that has it. across: it is stored (in, out).
    feed_forward: else it is attention's."""

    weight: str
    module: str
    across: bool
    feed_forward: bool


def panel_layers(model: Any, weights: Collection[str]) -> list[PanelLayer]:
    """The layers of weights in their order, before anything is put around them. weights: by their names in the
    checkpoint. Raises RequestError for one that is no linear layer of the live model."""
    layers = {f"{layer.module}.weight": layer for layer in linear_layers(model)}
    stored = pieces_of(family_named(model.config.model_type), weights, layers, model.base_model_prefix)
    live = {piece.names[0][0]: name for name, piece in stored.items() if not piece.stacked}
    for weight in weights:
        if weight not in live:
            raise RequestError(
                f"the panel has {weight!r}, which is no linear layer of the live model, as the experts of a mixture are"
                " none; a skill needs a panel without it: growkit panel --modules attention"
            )
    found = [(weight, layers[live[weight]]) for weight in weights]
    return [PanelLayer(weight, layer.module, layer.across, layer.feed_forward) for weight, layer in found]
