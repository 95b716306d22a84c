"""Mixtures of experts as stock models hold them in memory: all experts of a layer in one tensor. Splits such tensors into
the hub's, one for each expert, and joins them again. Knows families' tables; ignorant of what the tensors hold.
"""

import re
from collections.abc import Mapping

import torch

from growkit.families import Family

State = dict[str, torch.Tensor]


def split_experts(family: Family, state: Mapping[str, torch.Tensor]) -> State:
    """A state dict with hub names: what a live model holds as (experts, rows, columns) becomes views, one for each expert.

    Works for anything of the parameters' shapes, such as gradients or moments; names the family does not fuse stay.
    """
    found: State = {}
    for name, tensor in state.items():
        stored = family.fused.get(family.template(name))
        if stored is None:
            found[name] = tensor
        elif "{expert}" not in stored[0]:
            found[_named(family, name, stored[0])] = tensor
        else:
            for expert in range(len(tensor)):
                for part, value in zip(stored, tensor[expert].chunk(len(stored))):
                    found[_named(family, name, part, expert)] = value
    return found


def join_experts(family: Family, state: Mapping[str, torch.Tensor]) -> State:
    """The inverse of split_experts: a state dict with a live model's names."""
    origin = {part: (fused, place) for fused, parts in family.fused.items() for place, part in enumerate(parts)}
    found: State = {}
    groups: dict[str, dict[tuple[int, int], torch.Tensor]] = {}
    for name, tensor in state.items():
        if family.template(name) not in origin:
            found[name] = tensor
            continue
        fused, place = origin[family.template(name)]
        live = _named(family, name, fused)
        if family.of_each_expert(name):
            groups.setdefault(live, {})[_numbers(family, name)[1], place] = tensor
        else:
            found[live] = tensor
    for live, parts in groups.items():
        experts = sorted({expert for expert, _ in parts})
        places = sorted({place for _, place in parts})
        found[live] = torch.stack([torch.cat([parts[expert, place] for place in places]) for expert in experts])
    return found


def _numbers(family: Family, name: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<=\.)\d+(?=\.)", family.stem(name))]


def _named(family: Family, name: str, template: str, expert: int = 0) -> str:
    """The template's name in the layer of `name`, with its prefix."""
    stem = family.stem(name)
    layer, number = str(_numbers(family, name)[0]), str(expert)
    return name[: len(name) - len(stem)] + template.replace("{layer}", layer).replace("{expert}", number)
