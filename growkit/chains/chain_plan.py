"""A family planned before anything of it is made: each size grown from the one before, and its run, asked of the very
functions that will do it. Knows the order of things; ignorant of weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from growkit.chains.shadow import cast_shadow
from growkit.chains.sizes_file import ALONE, CHAIN, START, STORE, Generations, Size
from growkit.checkpoint.fields import Fields, Text, checked
from growkit.checkpoint.small_files import read_json
from growkit.errors import GrowkitError, RequestError
from growkit.growth.optimizer import kept_state
from growkit.growth.plan import Plan
from growkit.training.checkpoints import check_space
from growkit.training.outlook import Outlook
from growkit.training.run_folder import FINAL, check_place

WEIGHT = 4  # bytes of one in float32, in which runs leave models


@dataclass(frozen=True, kw_only=True)
class Doors:
    """The public functions that make a family: growkit.init, grow, teach and pretrain."""

    init: Callable[..., Any]
    grow: Callable[..., Any]
    teach: Callable[..., Any]
    pretrain: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class SizePlace:
    """Where a size of a family lies in its folder."""

    start: Path  # the model that its run begins with
    run: Path  # its run
    store: Path  # what its teacher says, where that is written down
    alone_start: Path  # the same size with random weights
    alone: Path  # and its run

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.run / FINAL


@dataclass(frozen=True, kw_only=True)
class PlannedSize:
    """One size of a family before it is made. grown: how it grows from the one before, None for the origin itself.
    ahead: what its run will be."""

    size: Size
    place: SizePlace
    grown: Plan | None
    ahead: Outlook

    def to_json(self) -> dict[str, Any]:
        """The size as plain data."""
        axes = [] if self.grown is None else [axis.to_json() for axis in self.grown.axes if axis.how != "kept"]
        return {
            "name": self.size.name,
            "axes": axes,
            "exactness": None if self.grown is None else str(self.grown.exactness),
            "teacher": self.size.teacher,
            "training": dict(self.size.training),
            "run": self.ahead.to_json(),
        }


def place_of(out: Path, size: Size, first: bool, family: Generations) -> SizePlace:
    """Where a size lies. The first may begin with the family's own model."""
    is_origin = first and not family.drawn and not size.growing
    return SizePlace(
        start=Path(family.origin) if is_origin else out / (size.name + START),
        run=out / size.name,
        store=out / (size.name + STORE),
        alone_start=out / (size.name + ALONE + START),
        alone=out / (size.name + ALONE),
    )


def plan_family(
    family: Generations, data: str | Path, out: Path, doors: Doors, resume: bool, alone: bool
) -> tuple[PlannedSize, ...]:
    """Every size planned, from shadows of those that are not there yet; nothing is written into `out`.

    resume: whether runs that are there may go on. alone: whether each size will be trained by itself too. Raises
    RequestError with the name of a size that cannot be.
    """
    _check_folder(family, data, out, resume)
    planned: list[PlannedSize] = []
    with TemporaryDirectory(prefix="growkit-") as folder:
        before = Path(family.origin)
        for number, size in enumerate(family.sizes):
            place = place_of(out, size, number == 0, family)
            shadow = Path(folder, size.name)
            try:
                start, grown = _start(family, size, place, before, shadow, doors)
                # a store that is not written yet says what the model says that will write it
                told = place.store if size.teacher == "stored" and place.store.exists() else before
                teacher = {} if size.teacher == "none" else {"teacher": told}
                going: dict[str, Any] = {"resume": "auto" if resume else "never", "dry_run": True}
                ahead = doors.pretrain(start, data, place.run, **training(size, **teacher), **going).outlook
                if alone:
                    bare = place.alone_start if place.alone_start.exists() else start
                    doors.pretrain(bare, data, place.alone, **training(size), **going)
            except GrowkitError as error:
                said = str(error).replace(f"{folder}/", "")
                raise RequestError(f"size {size.name!r}: {said}") from None
            planned.append(PlannedSize(size=size, place=place, grown=grown, ahead=ahead))
            before = place.final if place.final.exists() else start
    needed = sum(_room(one, alone) for one in planned if not one.place.run.exists())
    check_space(out, needed)
    return tuple(planned)


def _check_folder(family: Generations, data: str | Path, out: Path, resume: bool) -> None:
    """Refuse a folder that holds what no chain made, or a chain that may not go on. Raises RequestError."""
    inputs = {"the data": Path(data)}
    if Path(family.origin).exists():
        inputs["the config" if family.drawn else "the checkpoint"] = Path(family.origin)
    check_place(out, inputs)
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {str(out)!r} exists and is no folder; choose another")
    if (out / CHAIN).exists():
        checked(read_json(out / CHAIN), Fields({"command": Text("chain", "'chain'")}, needed=("command",)), out / CHAIN)
        if not resume:
            raise RequestError(f"{str(out)!r} holds a chain; go on with it by --resume auto, or choose another --out")
    elif out.is_dir() and any(out.iterdir()):
        raise RequestError(f"{str(out)!r} is there, but no {CHAIN}: no chain made it; choose another --out")


def _start(
    family: Generations, size: Size, place: SizePlace, before: Path, shadow: Path, doors: Doors
) -> tuple[Path, Plan | None]:
    """(the model that a size's run begins with, or its shadow; how it grows from the one before)."""
    if not size.growing:
        if place.start.exists() or not family.drawn:
            return place.start, None
        doors.init(family.origin, shadow, seed=size.training["seed"])  # of the smallest size
        return shadow, None
    grown = doors.grow(
        before, place.start, **growing(size), force=place.start.exists(), dry_run=True, optimizer=None
    ).plan
    if place.start.exists():
        return place.start, grown
    # a run leaves AdamW's state beside its model, and growing takes it along where it can
    state = kept_state(before) is not None or before != Path(family.origin)
    cast_shadow(grown, before, shadow, keeps_state=state and not grown.recipe.corners)
    return shadow, grown


def growing(size: Size) -> dict[str, Any]:
    """The keywords of `growkit.grow` for a size."""
    return {**size.growing, "seed": size.training["seed"]}


def training(size: Size, **teacher: Path) -> dict[str, Any]:
    """The keywords of `growkit.pretrain` for a size, with its teacher or without."""
    words = {key: value for key, value in size.training.items() if teacher or not key.startswith("teacher_")}
    return {**words, **teacher}


def _room(planned: PlannedSize, alone: bool) -> int:
    """Bytes that a size needs on disk."""
    once = planned.ahead.disk + WEIGHT * planned.ahead.parameters
    return once * (2 if alone else 1)


def totals(planned: Sequence[PlannedSize]) -> Mapping[str, float]:
    """Tokens and operations of a whole family, those of teachers at most."""
    return {
        "tokens": sum(one.ahead.tokens for one in planned),
        "flops": sum(one.ahead.flops + one.ahead.teacher_flops for one in planned),
    }
