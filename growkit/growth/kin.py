"""Whether models belong together, so that their weights can be joined, or subtracted and added. Knows which settings
must agree, and how a tensor is called in all of them; ignorant of values, of tokens and of what is made of the models.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from growkit.errors import RequestError
from growkit.families import Family
from growkit.growth.depth.by_layer import difference
from growkit.growth.same_meaning import disagreement, remarks
from growkit.growth.source_headers import Headers, architecture_of, is_tied
from growkit.growth.width.sizes import OPTIONS, read_sizes


@dataclass(frozen=True, kw_only=True)
class Kinship:
    """What models must share to go together, and how a sentence ends that says where they do not."""

    same: tuple[str, ...]  # axes whose sizes must be equal; "layer" among them: layers must see alike, one by one
    names: Callable[[Family, Headers], Iterable[str]]  # what a model's tensors go by
    one_class: str  # ... and a ...; only models of one class ...
    one_tensor: str  # only one ... has tensor ...
    one_size: Callable[[str], str]  # of an axis: ... have hidden 24 and 32...
    alike: str  # ... differ in layer_types...
    labels: bool = True  # whether classifiers must call their labels alike
    any_head: bool = False  # classes may differ, and whether a head is tied: their base models alone go together


def check_kin(family: Family, models: Sequence[Headers], kinship: Kinship) -> list[str]:
    """Refuse models of one family that are no kin of the first: class, sizes, tying, settings, tensors must agree.

    Returns notes on settings that differ and need not agree.
    """
    first, notes = models[0], list[str]()
    sizes = read_sizes(family, first.config)
    for other in models[1:]:
        pair, theirs = f"{first.label!r} and {other.label!r}", read_sizes(family, other.config)
        classes = architecture_of(family, first), architecture_of(family, other)
        if classes[0] != classes[1] and not kinship.any_head:
            raise RequestError(
                f"{pair} are a {classes[0]} and a {classes[1]}; only models of one class {kinship.one_class}"
            )
        for axis in kinship.same:
            if sizes.get(axis) != theirs.get(axis):
                raise RequestError(
                    f"{pair} have {axis} {sizes.get(axis)} and {theirs.get(axis)}{kinship.one_size(axis)}"
                )
        if is_tied(family, first) != is_tied(family, other) and not kinship.any_head:
            raise RequestError(f"{pair}: one has a tied head and one has not; save both alike first")
        labels = [labels_of(model) for model in (first, other)]
        if labels[0] != labels[1] and not kinship.any_head:
            raise RequestError(
                f"{pair} tell {labels[0]} and {labels[1]} labels apart; only classifiers of the same labels"
                f" {kinship.one_class}"
            )
        unlike = disagreement(
            family, first.config, other.config, kinship.labels and not family.has_language_head(classes[0])
        )
        if unlike is not None:
            setting, ours, others = unlike
            raise RequestError(
                f"{pair} have {setting} {ours!r} and {others!r} in config.json, as transformers reads it; these must agree"
            )
        key = difference(family, first.config, other.config, sizes["layer"]) if "layer" in kinship.same else None
        if key is not None:
            raise RequestError(f"{pair} differ in {key}{kinship.alike}")
        strange = {*kinship.names(family, first)} ^ {*kinship.names(family, other)}
        if strange:
            raise RequestError(f"only one of {pair} has tensor {min(strange)!r}; {kinship.one_tensor}")
        notes += remarks(family, pair, first.config, other.config)
    return notes


def labels_of(model: Headers) -> int | None:
    """How many labels a classifier tells apart, by its stored head; None for what is none."""
    heads = ("classifier.weight", "score.weight", "classifier.out_proj.weight", "qa_outputs.weight")
    return next((model.shapes[name][0] for name in heads if len(model.shapes.get(name, ())) == 2), None)


def joined(same: tuple[str, ...]) -> Kinship:
    """What sources share that become one model, by growth: the sizes in `same` above all."""
    return Kinship(
        same=same,
        names=_in_first_layer,
        one_class="become one",
        one_tensor="save both from one class first",
        one_size=lambda axis: f", which must be the same{_cure(axis)}",
        alike=": layers that become one must see alike; fuse models that agree",
    )


def _cure(axis: str) -> str:
    if axis == "vocab":
        return "; growkit joins models of one tokenizer"
    if axis == "layer":
        return "; deepen the other first, with growkit stack --method identity where that is exact"
    widens = axis in OPTIONS and axis != "head_dim"
    return f"; widen one first, with growkit widen {OPTIONS[axis]}" if widens else ""


def _in_first_layer(family: Family, headers: Headers) -> set[str]:
    """Names as they are stored, each layer's as if it were the first."""
    names = [name for name in headers.shapes if not family.is_buffer(name)]
    return {name if family.layer_of(name) is None else family.in_layer(name, 0) for name in names}


def stem_of(family: Family, model: Headers, name: str) -> str:
    """What a tensor is known by in every member: its stem, or the embedding's for a stored copy of it."""
    stem = family.stem(name)
    return family.embedding if stem in family.heads and is_tied(family, model) else stem


def names_of(family: Family, model: Headers) -> dict[str, str]:
    """stem -> the name this model stores it under, in the order of its file, buffers left out."""
    by_stem: dict[str, str] = {}
    for name in model.shapes:
        if not family.is_buffer(name):
            by_stem.setdefault(stem_of(family, model, name), name)
    return by_stem


def dtypes_of(family: Family, model: Headers) -> dict[str, torch.dtype]:
    """stem -> dtype."""
    return {stem: model.dtypes[name] for stem, name in names_of(family, model).items()}


def bytes_of(family: Family, model: Headers) -> int:
    """Bytes of weights, copies not counted."""
    return sum(prod(model.shapes[name]) * model.dtypes[name].itemsize for name in names_of(family, model).values())
