"""Mixtures of experts as stock models hold them in memory, and as some files do: all experts of a layer in one tensor.
Splits such tensors into the hub's, one for each expert, and joins them again. Knows families' tables; ignorant of what
the tensors hold.

AdamW's state goes by its parameters' names with .exp_avg, .exp_avg_sq or .step behind; it splits and joins alike.
"""

import re
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
from einops import rearrange

from growkit.families import Family

State = dict[str, torch.Tensor]


class HasShape(Protocol):
    """A tensor in memory, or what is known of one in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...


Value = TypeVar("Value", bound=HasShape)
_KIND = re.compile(r"\.(exp_avg|exp_avg_sq|step)$")


def split_experts(family: Family, state: Mapping[str, torch.Tensor]) -> State:
    """A state dict with hub names: what a live model holds as (experts, rows, columns) becomes views, one for each
    expert.

    Works for anything of the parameters' shapes, such as gradients or moments; names the family does not fuse stay.
    """

    def piece(tensor: torch.Tensor, expert: int, place: int, parts: int) -> torch.Tensor:
        return rearrange(tensor[expert], "(part row) column -> part row column", part=parts)[place]

    return split_with(family, state, piece)


def join_experts(family: Family, state: Mapping[str, torch.Tensor]) -> State:
    """The inverse of split_experts: a state dict with a live model's names."""
    live_state: State = {}
    groups: dict[str, dict[tuple[int, int], torch.Tensor]] = {}
    for name, tensor in state.items():
        live, place = live_name(family, name)
        if place is None:
            live_state[live] = tensor
        else:
            groups.setdefault(live, {})[_numbers(family, name)[1], place] = tensor
    for live, parts in groups.items():
        ordered = [parts[key] for key in sorted(parts)]
        count = len({place for _, place in parts})
        live_state[live] = (
            rearrange(ordered, "(expert part) row column -> expert (part row) column", part=count)
            if ordered[0].dim()
            else ordered[0]  # a step is one number for all experts
        )
    return live_state


def live_name(family: Family, name: str) -> tuple[str, int | None]:
    """What a live model calls the tensor that holds a stored one, and the place in it among an expert's; None where it
    is not stacked.
    """
    parameter, kind = _parted(name)
    template = family.template(parameter)
    for fused, parts in family.experts.fused.items():
        if template in parts:
            place = parts.index(template) if family.of_each_expert(parameter) else None
            return _named(family, parameter, fused) + kind, place
    return name, None


def expert_of(family: Family, name: str) -> int:
    """Which expert a stored tensor, or a moment of it, belongs to; its name has an expert's number."""
    return _numbers(family, _parted(name)[0])[1]


def split_with(
    family: Family, tensors: Mapping[str, Value], piece: Callable[[Value, int, int, int], Value]
) -> dict[str, Value]:
    """piece(tensor, expert, place, parts): one of an expert's parts in a stacked tensor."""
    pieces: dict[str, Value] = {}
    for name, tensor in tensors.items():
        parameter, kind = _parted(name)
        stored = family.experts.fused.get(family.template(parameter))
        if stored is None:
            pieces[name] = tensor
        elif not family.of_each_expert(stored[0]):
            pieces[_named(family, parameter, stored[0]) + kind] = tensor
        elif len(tensor.shape) == 3:
            for expert in range(tensor.shape[0]):
                for place, part in enumerate(stored):
                    pieces[_named(family, parameter, part, expert) + kind] = piece(tensor, expert, place, len(stored))
        else:
            for part in stored:  # a step: one number, which the first expert keeps for all
                pieces[_named(family, parameter, part) + kind] = tensor
    return pieces


def _parted(name: str) -> tuple[str, str]:
    """A parameter's name, and ".exp_avg" or the like behind it."""
    match = _KIND.search(name)
    return (name[: match.start()], match[0]) if match else (name, "")


def _numbers(family: Family, name: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<=\.)\d+(?=\.)", family.stem(name))]


def _named(family: Family, name: str, template: str, expert: int = 0) -> str:
    """The template's name in the layer of `name`, with its prefix."""
    stem = family.stem(name)
    layer, number = str(_numbers(family, name)[0]), str(expert)
    return name[: len(name) - len(stem)] + template.replace("{layer}", layer).replace("{expert}", number)
