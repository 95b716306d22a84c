"""Calls of public functions, checked for misspelt keywords and for numbers that cannot be. Knows what parameters say of
themselves; ignorant of what they mean.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar, get_args

from growkit.api.option import Option, number_of

P = ParamSpec("P")
R = TypeVar("R")


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A public function, whose misspelt keywords are named beside the nearest right one, as Python 3.13 does.

    Raises TypeError: "merge() got an unexpected keyword argument 'dorp'. Did you mean 'drop'?" And RequestError for a
    number outside of the range that its Option declares, or that is none. Everything else of a call is Python's own to
    check; the signature stays.
    """
    parameters = inspect.signature(function).parameters
    known = [name for name, p in parameters.items() if p.kind is not p.POSITIONAL_ONLY]
    numbers = {name: (option, kind) for name, p in parameters.items() for option, kind in _number(p)}

    @wraps(function)
    def checked(*arguments: P.args, **keywords: P.kwargs) -> R:
        for name in keywords:
            if name not in known:
                nearest = get_close_matches(name, known, 1)
                hint = f". Did you mean {nearest[0]!r}?" if nearest else ""
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{hint}")
            if name in numbers and keywords[name] is not None:
                option, kind = numbers[name]
                option.check(option.flag(name), keywords[name], whole=kind is int)
        return function(*arguments, **keywords)

    return checked


def _number(parameter: inspect.Parameter) -> list[tuple[Option, type]]:
    """The option and the kind of a parameter that is a number; else nothing."""
    options = [said for said in getattr(parameter.annotation, "__metadata__", ()) if isinstance(said, Option)]
    kind = number_of(get_args(parameter.annotation)[0]) if options else None
    return [] if kind is None else [(options[0], kind)]
