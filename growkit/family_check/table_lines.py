"""A family's table held against stock models without a number in them: each tensor claimed, each line used, each shape
the product of its axes, each role what its module does. Knows modules of PyTorch; ignorant of growth.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch

from growkit.errors import CheckpointError
from growkit.families.modules import task_heads
from growkit.families.schema import Family
from growkit.families.stock_config import hushed
from growkit.families.text_part import flattened
from growkit.family_check.small_models import small_config, stock_classes, stored
from growkit.growth.width.sizes import read_sizes
from growkit.maps.notation import GAIN, PAIR, READ, SHIFT, UNSIZED, WRITE, Dimension, base, is_any

# what each kind of module does with the dimensions of its weight, and of its bias
_ROLES = {
    "Linear": ((WRITE, READ), (WRITE,)),
    "Conv1D": ((READ, WRITE), (WRITE,)),
    "Embedding": ((WRITE, WRITE), ()),
    "Norm": ((GAIN,), (SHIFT,)),
}


def line_of(family: Family, name: str, architecture: str = "") -> str:
    """The line of the table that a tensor is read by, as people find it in the file: 'template': 'pattern'."""
    template = family.template(name)
    for kind, table in family.task_tensors.items():
        if kind in architecture and family.stem(name) in table:
            return f"{family.stem(name)!r}: {table[family.stem(name)]!r}"
    return f"{template!r}: {family.tensors.get(template, '')!r}"


def table_faults(family: Family) -> list[str]:
    """What is wrong with a family's table, in sentences that each name its line; none where nothing is."""
    faults: dict[str, str] = {}  # by template: a line that is wrong is so in every class
    met: set[str] = set()
    for settings in ({}, *family.variants):
        for architecture in stock_classes(family):
            # only a language model's head can be the embedding
            for tied in (True, False) if family.has_language_head(architecture.__name__) else (False,):
                model = _without_memory(family, architecture, {**settings, "tie_word_embeddings": tied})
                names = {**model.state_dict(), **stored(family, model)} if family.beside else stored(family, model)
                met |= {family.template(name) for name in names}
                for template, sentence in _of_model(family, model, names):
                    faults.setdefault(template, sentence)
    unused = [name for name in family.tensors if name not in met and name.removesuffix("bias") + "weight" not in met]
    heads = set(task_heads())
    held = {piece for pieces in family.stored_as.values() for piece in pieces}
    for name in unused:
        if name not in heads and name not in held and name not in family.stored_as and name not in family.heads:
            faults[name] = (
                f"the line {name!r}: {family.tensors[name]!r} is no tensor of any stock {family.model_type}; remove it,"
                " or add to `variants` the setting that has it"
            )
    for name in family.heads:
        if family.stands_before(name):
            faults[name] = (
                f"the line {line_of(family, name)} stands above all layers', as if it fed them; a table is in the order of"
                " computing, so put it below"
            )
    return list(faults.values())


def _without_memory(family: Family, architecture: Any, settings: Mapping[str, Any]) -> Any:
    with hushed(), torch.device("meta"):
        return architecture(small_config(family, **settings))


def _of_model(family: Family, model: Any, names: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """(template, what is wrong with its line) of a model's tensors."""
    architecture = type(model).__name__
    try:
        sizes = read_sizes(family, flattened(model.config.to_dict()))
    except CheckpointError as error:
        yield "sizes", f"`sizes` of {family.model_type} do not fit its config: {error}"
        return
    modules = dict(model.named_modules())
    for name, tensor in names.items():
        if family.is_buffer(name):
            continue
        try:
            dimensions = family.axes_of(name, architecture)
        except CheckpointError:
            yield family.template(name), _forgotten(family, name, architecture)
            continue
        if is_any(dimensions):
            continue
        line = line_of(family, name, architecture)
        wanted = [_size(dimension, sizes, size) for dimension, size in zip(dimensions, tensor.shape)]
        if len(dimensions) != tensor.dim() or wanted != list(tensor.shape):
            yield (
                family.template(name),
                f"the line {line} is {' x '.join(map(str, wanted))} in a small {architecture}, whose {name} is"
                f" {' x '.join(map(str, tensor.shape))}",
            )
            continue
        module = name.rpartition(".")[0]
        wrong = wrong_marks(modules.get(module), name, dimensions)
        if wrong:
            sentence = f"the line {line} has the marks of {wrong[0]}, but {name} of {architecture} is {wrong[1]}"
            yield family.template(name), sentence
        elif family.layer_of(name) is not None and any(d.before_head for d in dimensions):
            yield (
                family.template(name),
                f"the line {line} has a mark of the last norm before the head, but {name} of {architecture} is a layer's:"
                " its mark is ~ or +",
            )
        elif (
            isinstance(modules.get(module), torch.nn.Embedding)
            and family.layer_of(name) is None
            and not family.stands_before(name)
        ):
            yield (
                family.template(name),
                f"the line {line} stands below the layers', as if it read what they made, but {name} of {architecture}"
                " feeds them; a table is in the order of computing, so put it above",
            )


def _size(dimension: Dimension, sizes: Mapping[str, int], stated: int) -> int:
    """What a dimension should be; a size that no config states is what it is."""
    if dimension.axes[0] in UNSIZED:
        return stated
    return sum(prod(2 if axis == PAIR else sizes.get(base(axis), 0) for axis in block) for block in dimension.blocks)


def _forgotten(family: Family, name: str, architecture: str) -> str:
    """A tensor without a line: forgotten, or known behind a prefix that the family does not name."""
    stem = family.stem(name)
    words = stem.split(".")
    for number in range(1, len(words)):
        rest = ".".join(words[number:])
        if family.template(rest) in family.tensors and "{layer}" not in family.template(".".join(words[:number]) + "."):
            return (
                f"{name} of {architecture} would be the line {line_of(family, rest)} but for"
                f" {'.'.join(words[:number]) + '.'!r} before it, which is not among the prefixes"
                f" {', '.join(map(repr, family.prefixes))}"
            )
    return f"{name} of {architecture} has no line: the table lacks {family.template(name)!r}"


def wrong_marks(module: Any, name: str, dimensions: tuple[Dimension, ...]) -> tuple[str, str] | None:
    """(what the marks of a tensor's line say, what its module is) where these differ."""
    kind, part, roles = type(module).__name__, name.rpartition(".")[2], tuple(d.role for d in dimensions)
    if part not in ("weight", "bias"):
        return None
    norm = "Norm" in kind and not any(module.children())  # a norm is made of no modules
    known = next((name for name in _ROLES if name == kind or (name == "Norm" and norm)), None)
    if known is None:
        return None
    weight, bias = _ROLES[known]
    wanted = weight if part == "weight" else bias
    if len(roles) != len(wanted) or roles == wanted:
        return None
    says = next((name for name, both in _ROLES.items() if roles in both), "none of PyTorch's modules")
    return f"the {part} of a {says}" if says in _ROLES else says, f"the {part} of a {kind}"
