"""Which modules of a stock model small ones go on: the linear layers of attention and feed-forward. Knows families'
tables and what wrapping does to names; ignorant of what is put there.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.families.text_part import flattened
from growkit.growth.width.sizes import read_sizes
from growkit.maps.notation import READ, base, parse

WRAPPED = ".base_layer"  # what PEFT, and growkit, call the module that a small one is around
_ROUTING = {"expert", "gate"}
_WIDTHS = {"ffn", "dense_ffn", "shared_ffn"}
_KEYS_VALUES = {"key_dim", "value_dim"}


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A linear layer of a live model. across: its weight is stored (in, out). feed_forward: else it is attention's.
    reads_ffn: its input is a feed-forward layer's hidden activation. heads: how many heads of keys or values it puts
    out; 0 for none. reads: the axes of its input."""

    module: str
    across: bool
    feed_forward: bool
    reads_ffn: bool
    heads: int
    reads: tuple[str, ...]

    @property
    def scaled(self) -> bool:
        """Whether IA3 (arXiv 2205.05638) scales something here: keys, values, or hidden activations."""
        return self.reads_ffn or self.heads > 0


def linear_layers(model: Any) -> list[LinearLayer]:
    """The linear layers inside a stock model's layers, in its order; routers and what is stacked over experts are
    none."""
    family = family_named(model.config.model_type)
    return linears_among(family, flattened(model.config.to_dict()), [name for name, _ in model.named_parameters()])


def linears_among(family: Family, config: Mapping[str, Any], names: Iterable[str]) -> list[LinearLayer]:
    """The linear layers that weights of these names are of, in their order, be they of a live model or of a file;
    routers, and what each expert has for itself or all have stacked, are none."""
    sizes, layers = read_sizes(family, config), []
    for name in names:
        pattern = family.tensors.get(family.template(name))
        if pattern is None or not name.endswith(".weight") or family.layer_of(name) is None:
            continue
        dimensions = parse(pattern)
        reads = [dimension for dimension in dimensions if dimension.role == READ]
        if len(dimensions) != 2 or len(reads) != 1 or family.of_each_expert(name):
            continue
        written = next(dimension for dimension in dimensions if dimension.role != READ)
        writes = written.axes
        if _ROUTING & {*writes}:
            continue
        # a fused projection is one for all three, as PEFT's table has it
        blocks = written.blocks if _KEYS_VALUES & {*writes} else ()
        layers.append(
            LinearLayer(
                module=name.removesuffix(".weight"),
                across=dimensions[0].role == READ,
                feed_forward=bool(_WIDTHS & {*reads[0].axes, *writes}),
                reads_ffn=bool(_WIDTHS & {*reads[0].axes}),
                heads=sum(prod(sizes[base(axis)] for axis in block[:-1]) for block in blocks),
                reads=reads[0].axes,
            )
        )
    return layers


def stacked_experts(model: Any) -> list[str]:
    """The parameters of a live mixture that hold all experts of a layer, by name; none of a dense model."""
    family = family_named(model.config.model_type)
    fused = {live for live, stored in family.experts.fused.items() if family.of_each_expert(stored[0])}
    return [name for name, _ in model.named_parameters() if family.template(name) in fused]


def refuse_experts(family: Family, word: str) -> None:
    """Raises RequestError for a mixture: its experts are no linear layers that a module could be put around."""
    if family.is_moe:
        raise RequestError(
            f"{word} goes on linear layers, and stock models hold the experts of a {family.model_type} in one tensor; lora"
            " goes on these too"
        )


def endings(modules: Iterable[str], chosen: Collection[str]) -> dict[str, str]:
    """For each of the chosen modules the shortest end of its name that none of the others has: so PEFT names
    targets."""
    others = {end for module in modules if module not in chosen for end in _ends(module)}
    return {module: next((end for end in _ends(module) if end not in others), module) for module in chosen}


def _ends(module: str) -> list[str]:
    """The ends of a name, shortest first."""
    parts = module.split(".")
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def unwrapped(name: str) -> str:
    """What a parameter of a stock model is called without the small modules around its module."""
    return name.replace(WRAPPED, "")


def put_around(model: torch.nn.Module, module: str, wrapper: torch.nn.Module) -> None:
    """Put a module in the place of the one it is around."""
    home, _, own = module.rpartition(".")
    setattr(model.get_submodule(home), own, wrapper)
