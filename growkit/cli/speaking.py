"""The command that tries a model: generate. Knows what is shown of it; everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.models.generate import Generated


def speaking(call: Callable[..., "Generated"], as_json: bool) -> None:
    """The answer as it comes, on standard output alone; what there is to say of it goes to standard error."""
    from growkit.cli.terminal import err, out, print_json

    if as_json:
        print_json(call().to_json())
        return
    generated = call(say=out.flow)
    out.print()
    if generated.opened is not None:
        err.note(f"opened {' and '.join(generated.opened) or 'no skill: the base alone'}")
    if generated.ended == "length":
        err.note(f"cut after {generated.tokens:,} tokens; --max-tokens allows more")


command(api.generate, speaking)
