"""Commands made from public functions: each parameter that has an Option or an Argument becomes one of the command's.
Knows signatures and typer; ignorant of what any function does.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer

from growkit.api.option import SAME, Argument, Callback, Option
from growkit.api.words import OUTPUT
from growkit.cli.app import app, people_errors

Act = Callable[[Callable[..., Any], bool], int | None]  # (the call, as JSON) -> exit code

SHORT = 16  # characters of choices that stand in the place of a value; more would break in a terminal of 80 columns
AS_JSON = "as_json"


def command(function: Callable[..., Any], act: Act, name: str = "", interrupted: str = "interrupted") -> None:
    """Make a command of a public function.

    act: called with the function, its arguments filled in and callbacks left open, and whether --json was given; shows
    what comes back and returns an exit code, or nothing. name: the command's, one word or two; by default the
    function's, whose second word is behind its first "_". interrupted: what is said after Ctrl-C.
    """
    parameters = options_of(function)
    needed = {p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty}

    def run(**values: Any) -> None:
        as_json = values.pop(AS_JSON)
        # what nobody wrote is the function's to choose, or to refuse
        given = {key: value for key, value in values.items() if key in needed or (value is not None and value != [])}
        with people_errors(interrupted, as_json):
            code = act(partial(function, **given), as_json)
        if code:
            raise typer.Exit(code)

    run.__doc__ = (inspect.getdoc(function) or "").split("\n\n")[0]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name or function.__name__.replace("_", " ", 1).replace("_", "-"))(run)


def options_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function's command, as typer reads them, in the order that help lists them, and --json.

    What stands in its place in Python but is an option of the command, such as `out`, comes with the others of its
    panel.
    """
    declared = [p for p in inspect.signature(function).parameters.values() if not isinstance(declared_of(p), Callback)]
    order = [p for p in declared if isinstance(declared_of(p), Argument)]
    placed = [p for p in declared if p.kind is not p.KEYWORD_ONLY and p not in order]
    for parameter in (p for p in declared if p.kind is p.KEYWORD_ONLY):
        order += [p for p in placed if p not in order and declared_of(p).panel == declared_of(parameter).panel]
        order.append(parameter)
    order += [p for p in placed if p not in order]
    options = [_typed(parameter) for parameter in order]
    dry = next((number for number, p in enumerate(order) if p.name == "dry_run"), None)
    panel = OUTPUT if dry is None else declared_of(order[dry]).panel
    text = (
        "With --dry-run: as JSON."
        if function.__name__ in ("pretrain", "tune", "skill_learn")
        else "Print for machines."
    )
    json = Annotated[bool, typer.Option("--json", help=text, rich_help_panel=panel)]
    options.insert(len(order) if dry is None else dry + 1, _keyword(AS_JSON, json, False))
    return options


def declared_of(parameter: inspect.Parameter) -> Any:
    """What a parameter says of itself: its Option, Argument or Callback. Raises TypeError for one that says nothing."""
    for declared in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(declared, Option | Argument | Callback):
            return declared
    raise TypeError(f"parameter {parameter.name!r} has neither Option nor Argument")


def _typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """One parameter as typer reads it."""
    declared = declared_of(parameter)
    kind, choices = kind_of(get_args(parameter.annotation)[0])
    default = parameter.default if getattr(declared, "command_default", SAME) is SAME else declared.command_default
    default = [default] if kind == list[str] and isinstance(default, str) else default
    info: Any
    shown = default not in (None, parameter.empty)  # older versions of typer would print "[default: None]"
    if isinstance(declared, Argument):
        info = typer.Argument(metavar=declared.metavar, help=_escaped(declared.help), show_default=shown)
        default = None if declared.may_lack else default
    else:
        text, metavar = declared.help, declared.metavar
        if choices and len("|".join(choices)) <= SHORT:
            metavar = "|".join(choices)
        elif choices:
            text = f"{', '.join(choices[:-1])} or {choices[-1]}: {text}"
        info = typer.Option(
            *_flags(parameter.name, declared, kind, default), rich_help_panel=declared.panel, metavar=metavar,
            help=_escaped(text), show_default=shown,
        )  # fmt: skip
    lacks = (default is None and parameter.default is not parameter.empty) or getattr(declared, "may_lack", False)
    annotation: Any = Optional[kind] if lacks else kind
    return _keyword(parameter.name, Annotated[annotation, info], default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flags(name: str, declared: Option, kind: Any, default: Any) -> tuple[str, ...]:
    """How an option is written. One that can be switched off has a second flag for that."""
    if declared.flags:
        return declared.flags
    flag = declared.flag(name)
    return (f"{flag}/--no-{flag[2:]}",) if kind is bool and default is not False else (flag,)


def kind_of(annotation: Any) -> tuple[Any, tuple[str, ...]]:
    """(what a command makes of a word: str, int, float, bool or list[str], the choices there are) of an annotation.

    Words are text wherever text is allowed; a sequence of text is an option that may be given again.
    """
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = {member for member in members if isinstance(member, type)} - {type(None)}
    if any(get_origin(member) is Literal for member in members):
        return str, next(get_args(member) for member in members if get_origin(member) is Literal)
    for member in members:
        if get_origin(member) is not None and issubclass(get_origin(member), Sequence):
            (inner,) = get_args(member)
            if str in (inner, *get_args(inner)):
                return list[str], ()
    if str in kinds:
        return str, ()
    (kind,) = kinds
    return kind, ()


def _escaped(text: str) -> str:
    """Help as rich prints it word for word."""
    return text.replace("[", r"\[")
