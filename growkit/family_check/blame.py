"""Where two models part that should not: the first module, and the line of the table that is to blame. Knows live
modules and the notation; ignorant of why a growth was tried.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES, Family
from growkit.family_check.one_growth import NO_MORE_THAN, MeasuredGrowth, grown_small
from growkit.family_check.outputs import whole
from growkit.family_check.table_lines import line_of, wrong_marks
from growkit.growth.rules import dimension_map
from growkit.maps.axis import GATHER
from growkit.maps.notation import BASE, GAIN, WRITE, parse

PARTS = 1e-8  # of the largest value that a module puts out
SLOTS = ("query_dim", "key_dim", "value_dim")
SWAPS = {"~": ("~/", "+"), "~/": ("~", "+"), "+": ("~", "+/"), "+/": ("+", "~/"), "": ("/",), "/": ("",)}


def blamed(family: Family, model: Any, growth: Mapping[str, Any], measured: MeasuredGrowth) -> str:
    """A sentence on the table: the line that, read otherwise, makes the outputs equal; or the module that parts first
    and the lines of its tensors.
    """
    module = first_that_parts(family, model, measured)
    modules = {family.template(name): (name, name.rpartition(".")[0]) for name in model.state_dict()}
    own = [name for name in model.state_dict() if name.rpartition(".")[0] == module]
    for template, pattern, other in _other_readings(family, [family.template(name) for name in own]):
        name, holder = modules.get(template, ("", ""))
        if name and wrong_marks(model.get_submodule(holder), name, parse(other)):
            continue  # such a line is wrong whatever it mends: it may hide what a block writes
        if _agrees({**family.tensors, template: other}, family, model, growth):
            return f"they are equal where the line {template!r}: {pattern!r} is {other!r}: this line is wrong"
    lines = ", ".join(line_of(family, name, type(model).__name__) for name in own if family.knows(name))
    where = f"the first module that parts is {module or 'the output'}" + (f", of the lines {lines}" if lines else "")
    return f"{where}; no single line read otherwise mends it, so look at the facts beside the table"


def lifted(family: Family, model: Any, growth: Mapping[str, Any]) -> str:
    """A sentence on the line whose mark alone makes a growth refused that is exact with the mark of a last norm; ""
    where there is none."""
    for template, pattern in family.tensors.items():
        other = f"~/{pattern.removeprefix('~')}"
        if re.fullmatch(r"~[a-z_]+", pattern) and _agrees({**family.tensors, template: other}, family, model, growth):
            return f"it is exact where the line {template!r}: {pattern!r} is {other!r}: this line is wrong"
    return ""


def _agrees(table: Mapping[str, str], family: Family, model: Any, growth: Mapping[str, Any]) -> bool:
    """Whether outputs are equal with another table."""
    kept = FAMILIES[family.model_type]
    FAMILIES[family.model_type] = replace(family, tensors=table)
    try:
        return grown_small(FAMILIES[family.model_type], model, growth).difference <= NO_MORE_THAN
    except (AssertionError, RuntimeError, ValueError, KeyError, RequestError, CheckpointError):
        return False
    finally:
        FAMILIES[family.model_type] = kept


def _other_readings(family: Family, first: list[str]) -> Iterator[tuple[str, str, str]]:
    """(template, pattern, another) of every line, those of some templates first: other marks, other orders."""
    for template in dict.fromkeys([*(name for name in first if name in family.tensors), *family.tensors]):
        pattern = family.tensors[template]
        terms = re.findall(r"[^\s(]*\([^)]*\)|\S+", pattern)
        for place, term in enumerate(terms):
            mark, body = re.fullmatch(r"([~+]?/?)(.*)", term).groups()  # type: ignore[union-attr]
            stream = [mark + BASE[body]] if BASE.get(body) == "hidden" else []
            for other in (
                *(swap + body for swap in SWAPS[mark]),
                *stream,
                *(mark + one for one in _other_orders(body)),
            ):
                yield template, pattern, " ".join([*terms[:place], other, *terms[place + 1 :]])


def _other_orders(term: str) -> Iterator[str]:
    """A term without its mark, of several words: words of a block the other way round, or another of a head's slots for
    one of them; neighbouring blocks changed over; blocks one after another that were dealt out.
    """
    dealt, _, inner = term.strip("()").rpartition(": ")
    blocks = [block.split() for block in inner.split("|")]
    ways = [[*blocks[:at], block[::-1], *blocks[at + 1 :]] for at, block in enumerate(blocks) if len(block) == 2]
    ways += [[*blocks[:at], blocks[at + 1], blocks[at], *blocks[at + 2 :]] for at in range(len(blocks) - 1)]
    for at, block in enumerate(blocks):
        for slot in SLOTS if len(block) == 2 and block[1] in SLOTS else ():
            ways.append([*blocks[:at], [block[0], slot], *blocks[at + 1 :]])
    for way in ways:
        if way != blocks:
            yield f"({f'{dealt}: ' if dealt else ''}{' | '.join(map(' '.join, way))})"
    if dealt:
        yield f"({inner})"


def first_that_parts(family: Family, model: Any, measured: MeasuredGrowth) -> str:
    """The name of the first module with a weight, in the order of computing, whose output in the grown model is not
    what the table's map makes of the source's; "" where all are.

    A linear layer writes each entry times its amplitude; of a norm, only that each entry is a multiple can be asked.
    """
    architecture = type(model).__name__
    (ours, order), (theirs, _) = (_traced(one, family) for one in (model, measured.grown))
    for module in order:
        weight = f"{module}.weight"
        if module not in theirs or not family.knows(weight):
            continue
        before, after = ours[module].double().flatten(0, -2), theirs[module].double().flatten(0, -2)
        dimension = next((d for d in family.axes_of(weight, architecture) if d.role in (WRITE, GAIN)), None)
        if len(before) != len(after) or dimension is None:
            continue
        if "embedding" in weight or module.endswith(("wte", "wpe", "embed_tokens")):
            dimension = family.axes_of(weight, architecture)[-1]
        axis = dimension_map(dimension, before.shape[-1], measured.plan.growth)
        if axis.old != before.shape[-1] or axis.new != after.shape[-1]:
            return module
        side = axis.sides[dimension.role]
        carried = torch.from_numpy(side.mode == GATHER)
        expected = before[:, torch.from_numpy(axis.index)]
        scale = (expected * after).sum(0) / (expected * expected).sum(0).clamp_min(1e-300)
        off = ((after - expected * scale)[:, carried]).abs().max() if carried.any() else torch.tensor(0.0)
        if off > PARTS * after.abs().max():
            return module
    return ""


def _traced(model: Any, family: Family) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What each module with a weight puts out, and their names in the order of computing."""
    found: dict[str, torch.Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter):

            def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
                if isinstance(output, torch.Tensor) and 1 < output.dim() < 4:
                    found.setdefault(name, output.detach())

            hooks.append(module.register_forward_hook(keep))
    try:
        whole(model, family)
    finally:
        for hook in hooks:
            hook.remove()
    return found, list(found)
