"""Calls of public functions, checked for misspelt keywords. Knows names of parameters; ignorant of what they mean."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A public function, whose misspelt keywords are named beside the nearest right one, as Python 3.13 does.

    Raises TypeError: "merge() got an unexpected keyword argument 'dorp'. Did you mean 'drop'?" Everything else of a
    call is Python's own to check; the signature stays.
    """
    known = [name for name, p in inspect.signature(function).parameters.items() if p.kind is not p.POSITIONAL_ONLY]

    @wraps(function)
    def checked(*arguments: P.args, **keywords: P.kwargs) -> R:
        for name in keywords:
            if name not in known:
                nearest = get_close_matches(name, known, 1)
                hint = f". Did you mean {nearest[0]!r}?" if nearest else ""
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{hint}")
        return function(*arguments, **keywords)

    return checked
