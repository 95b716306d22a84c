"""What a merge recipe of mergekit says of one number: gradients, filters, and which of several places counts. Knows how
mergekit reads them; ignorant of methods and of models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from growkit.errors import RequestError
from growkit.merging.by_tensor import EVERY, ByTensor, Number, Stretched, by_tensor

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """Some layers of the result and what is said of them. layers None: all there are."""

    layers: tuple[int, int] | None
    models: Mapping[str, Settings]  # what is said of each model's part
    settings: Settings = field(default_factory=dict)


def number_of(
    key: str, spans: Sequence[Span], top: Settings, model: str | None = None, default: float | None = None
) -> Number:
    """A number by tensor: what the model's entry says, else its slice, else the recipe's top; 0 in slices without the
    model. model None: one number for all of them. default None: it must be said.

    Raises RequestError for what is no number, and for one that is missing.
    """
    parts: list[Stretched] = []
    for span in spans:
        if model is not None and model not in span.models:
            parts.append(Stretched((0.0,), EVERY, span.layers))
            continue
        said: list[Stretched] = []
        for scope in ((span.models[model],) if model is not None else ()) + (span.settings, top):
            if key in scope:
                said += _parts(scope[key], key, span.layers)
        if default is None and not any(part.name == EVERY for part in said):
            of = f" of {model!r}" if model is not None else ""
            raise RequestError(
                f"the recipe lacks {key}{of}; give it under parameters, and after filters an entry without one"
            )
        parts += said if default is None else [*said, Stretched((default,), EVERY, span.layers)]
    only = parts[0]
    return (
        only.values[0] if only.name == EVERY and len(only.values) == 1 and len(spans) == 1 else ByTensor(tuple(parts))
    )


def _parts(value: Any, key: str, layers: tuple[int, int] | None) -> list[Stretched]:
    """A setting: a number, a gradient, or entries of value and filter, of which the first that fits counts."""
    entries = value if isinstance(value, list) and any(isinstance(one, Mapping) for one in value) else [value]
    return [_part(entry, key, layers) for entry in entries]


def _part(entry: Any, key: str, layers: tuple[int, int] | None) -> Stretched:
    name = EVERY
    if isinstance(entry, Mapping):
        strange = next((other for other in entry if other not in ("filter", "value")), None)
        if strange is not None or "value" not in entry:
            raise RequestError(
                f"{key} in the recipe has an entry with {strange or 'no value'!r}; it has filter and value"
            )
        name, entry = entry.get("filter") or EVERY, entry["value"]
    number = by_tensor(entry if not isinstance(entry, Mapping) else None, f"{key} in the recipe")
    return Stretched(number.parts[0].values if isinstance(number, ByTensor) else (number,), str(name), layers)


def spans_of(recipe: Settings, allowed: Sequence[str]) -> list[Span]:
    """Models or slices of a recipe as layers with what is said of them. allowed: what may be said.

    Raises RequestError for what is not understood.
    """
    if bool(recipe.get("models")) == bool(recipe.get("slices")):
        raise RequestError("the recipe should have either models or slices")
    if recipe.get("models"):
        models = {}
        for entry in _list(recipe["models"], "models"):
            check_keys(table_of(entry, "an entry of models"), ("model", "parameters"), "an entry of models")
            name = model_of(entry.get("model"), "model")
            if name in models:
                raise RequestError(f"the recipe names model {name!r} twice; name it once, with a larger weight")
            models[name] = _parameters(entry, allowed)
        return [Span(None, models)]
    spans = []
    for piece in _list(recipe["slices"], "slices"):
        check_keys(table_of(piece, "an entry of slices"), ("sources", "parameters"), "an entry of slices")
        models, ranges = {}, []
        for source in _list(piece.get("sources"), "sources"):
            check_keys(table_of(source, "a source"), ("model", "layer_range", "parameters"), "a source of a slice")
            ranges.append(_range(source.get("layer_range")))
            models[model_of(source.get("model"), "model")] = _parameters(source, allowed)
        if len({*ranges}) > 1 or len(models) != len(ranges):
            raise RequestError(
                "a slice has sources of other layers, or one model twice; growkit merges layer by layer: stack first, with"
                " merge_method passthrough, then merge"
            )
        spans.append(Span(ranges[0], models, _parameters(piece, allowed)))
    return spans


def check_whole(spans: Sequence[Span]) -> None:
    """Raises RequestError for slices that do not leave the layers where they are."""
    after = 0
    for span in spans:
        first, stop = span.layers or (0, 0)
        if first != after:
            raise RequestError(
                f"the recipe's slices go on with layer {first} where {after} would follow; growkit merges layers where"
                " they are: stack first, with merge_method passthrough, then merge"
            )
        after = stop


def _parameters(entry: Settings, allowed: Sequence[str]) -> Settings:
    settings = table_of(entry.get("parameters") or {}, "parameters")
    check_keys(settings, allowed, "parameters of a model or slice (normalize, rescale and int8_mask stand at the top)")
    return settings


def flag_of(settings: Settings, key: str, default: bool | None) -> bool | None:
    """Yes, no, or nothing. Raises RequestError for anything else."""
    value = settings.get(key, default)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"the recipe has {key} {value!r}; it should be true or false")
    return value


def _range(value: Any) -> tuple[int, int]:
    if not (
        isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value) and 0 <= value[0] < value[1]
    ):
        raise RequestError(f"the recipe has layer_range {value!r}; it should be two layers from 0, the second left out")
    return value[0], value[1]


def model_of(value: Any, key: str) -> str:
    """A path or hub id. Raises RequestError for anything else."""
    if not isinstance(value, str) or not value:
        raise RequestError(f"the recipe has {key} {value!r}; it should be a path or a hub id")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise RequestError(f"the recipe should list {key}")
    return value


def table_of(value: Any, what: str) -> dict[str, Any]:
    """A table of keys. Raises RequestError for anything else."""
    if not isinstance(value, dict):
        raise RequestError(f"{what} should be a table of keys, not {type(value).__name__}")
    return value


def check_keys(table: Settings, known: Sequence[str], what: str) -> None:
    """Raises RequestError for a key that is not known."""
    strange = next((key for key in table if key not in known), None)
    if strange is not None:
        raise RequestError(f"{what}: {str(strange)[:60]!r} is not handled; growkit reads {', '.join(known) or 'none'}")
