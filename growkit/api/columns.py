"""What a table in a file may say: the parameters of a public function as kinds of fields. Knows signatures; ignorant of
what any function does.
"""

import inspect
from collections.abc import Callable, Collection
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from growkit.api.option import Option, number_of
from growkit.checkpoint.fields import FieldKind, Flag, Number, OneOf, Text, Whole

TEXT = Text(r"[^\0]{1,1000}", "text of at most 1000 characters")


def columns_of(function: Callable[..., Any], without: Collection[str]) -> dict[str, FieldKind]:
    """The keywords of a function that people may give it, by name, in order, each with what it may be."""
    parameters = inspect.signature(function).parameters
    return {
        name: _kind(parameter)
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in without and _option(parameter) is not None
    }


def _option(parameter: inspect.Parameter) -> Option | None:
    said = getattr(parameter.annotation, "__metadata__", ())
    return next((one for one in said if isinstance(one, Option)), None)


def _kind(parameter: inspect.Parameter) -> FieldKind:
    """What a parameter may be, as a file says it."""
    annotation, option = get_args(parameter.annotation)[0], _option(parameter)
    assert option is not None
    number = number_of(annotation)
    if number is not None and option.within is not None:
        least, most = option.within
        return Whole(int(least), int(most)) if number is int else Number(least, most)
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    choices = next((get_args(member) for member in members if get_origin(member) is Literal), None)
    if choices is not None:
        return OneOf(choices)
    return Flag() if bool in members else TEXT
