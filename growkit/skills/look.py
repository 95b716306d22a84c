"""A look at a panel, from request to result: what it keeps, a picture, and what its directions do. Knows the order of
things; ignorant of how each is found.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.source import open_checkpoint
from growkit.errors import RequestError
from growkit.skills.panel_file import open_panel
from growkit.skills.panel_view import PanelView, draw_spectra, view_of
from growkit.skills.picture_file import check_picture
from growkit.skills.turns import Turned, turn, turns_of


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to see of a panel. turned: what its directions do, where a model was at hand."""

    view: PanelView
    turned: tuple[Turned, ...]
    picture: Path | None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        picture = None if self.picture is None else str(self.picture)
        return {**self.view.to_json(), "turned": [one.to_json() for one in self.turned], "picture": picture}


def look(
    folder: str | Path,
    *,
    picture: str | Path | None,
    base: str | Path | None,
    texts: Sequence[str | Path],
    turns: Sequence[str],
    begin: Callable[[int], Callable[[int], None]] = lambda _total: lambda _done: None,
    **how: Any,
) -> Look:
    """Look at a panel, as growkit.panel_show says. how: of `turn`. Raises RequestError or CheckpointError."""
    if bool(texts) != (base is not None) or (turns and base is None):
        raise RequestError("what a control does is measured: name its model with --base and a text with --text")
    with closing(open_panel(folder)) as panel:
        if picture is not None:
            check_picture(Path(picture))
        view, turned = view_of(panel), []
        if base is not None:
            wanted = turns_of(turns, panel)
            with closing(open_checkpoint(base)) as source:
                panel.check_base(source)
                turned = turn(panel, source, texts, wanted, begin=begin, **how)
    if picture is not None:
        draw_spectra(view, Path(picture))
    return Look(view=view, turned=tuple(turned), picture=None if picture is None else Path(picture))
