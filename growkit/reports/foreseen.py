"""A run to come, placed in a forecast: the loss that such a run ends with. Knows forecasts' report.json and lineages;
ignorant of how laws are fitted, and of torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from growkit.checkpoint.fields import Fields, ListOf, Null, Number, Text, checked
from growkit.checkpoint.record import record_of
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PROVENANCE
from growkit.errors import RequestError
from growkit.reports.growth_law import DRAWS, GrowthLaw, interval
from growkit.reports.pilots import base_of, differing, lineage, model_of
from growkit.reports.report import DATA

POWERS = ListOf(Number(-1e4, 1e4), least=2, most=4)
LAW = Fields({"floor": Number(0.0, 1e3), "scratch": POWERS, "grown": POWERS}, ("floor", "scratch", "grown"))
PASSING = Fields({"base": Number(0.0, 1e20), "extra": Null(Number(0.0, 1e30))}, ("base", "extra"))
SCHEMA = Fields(
    {
        "command": Text("forecast", "'forecast'"),
        "model": Fields({}),
        "law": LAW,
        "draws": ListOf(LAW, least=1, most=DRAWS),
        "passing": ListOf(PASSING, least=1),
    },
    ("command", "model", "law", "draws", "passing"),
)


class Foreseen(NamedTuple):
    """The loss, in nats, that a run ends with, between which two nine in ten draws lie, and what scratch has by then;
    None where it is from scratch."""

    loss: float
    between: tuple[float, float]
    scratch: float | None


def foreseen(
    folder: str | Path, checkpoint: Path | None, name: str, config: Mapping[str, Any], tokens: int
) -> Foreseen:
    """What a forecast says of a run of so many tokens that begins with a checkpoint.

    checkpoint, name: its folder, and what it is called. config: its own. Raises CheckpointError for what is no
    forecast, RequestError for one of other models.
    """
    path = Path(folder) / DATA
    said = checked(read_json(path), SCHEMA, path)
    key = differing(said["model"], model_of(config))
    if key is not None:
        raise RequestError(
            f"--forecast {str(folder)!r} is of models with {key} {said['model'].get(key)!r}, and the checkpoint has"
            f" {config.get(key)!r}; name one of its size"
        )
    own = record_of(checkpoint)
    before = lineage({"sources": [{"name": name, "record": own}] if own else []}, Path(name) / PROVENANCE)
    base = base_of(before, name)
    bases = [one["base"] for one in said["passing"]]
    if base is not None and base not in bases and len(said["law"]["grown"]) == 2:
        raise RequestError(
            f"--forecast {str(folder)!r} is of models grown from a base that had {bases[0]:,.0f} tokens, and this one's had"
            f" {base:,.0f}; make a forecast from pilots of two bases"
        )
    law, *draws = (
        GrowthLaw(floor=one["floor"], scratch=tuple(one["scratch"]), grown=tuple(one["grown"]))
        for one in (said["law"], *said["draws"])
    )
    return Foreseen(
        loss=law.loss(base, tokens),
        between=interval([draw.loss(base, tokens) for draw in draws]),
        scratch=None if base is None else law.loss(None, tokens),
    )
