"""Everything that is settled before a byte is written: sources opened, the request planned, the output checked. Knows the
order of things; ignorant of how a plan is carried out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.companions import modules_conflict, tokenizer_conflict
from growkit.checkpoint.source import Checkpoint, open_state, read_json
from growkit.checkpoint.stream import Progress
from growkit.checkpoint.writer import check_target
from growkit.errors import RequestError
from growkit.families import family_named
from growkit.growth.grow_plan import grow_plan
from growkit.growth.like import sizes_like
from growkit.growth.names import default_name, folder_for
from growkit.growth.optimizer import MULTIPLIERS, optimizer_tensors
from growkit.growth.plan import Plan
from growkit.growth.request import Recipe
from growkit.growth.source_headers import Headers
from growkit.growth.sources import headers_of, open_source, split_stored
from growkit.growth.upcycle.upcycle_plan import upcycle_plan

SHARD_BYTES = 5_000_000_000
Path_ = str | Path
Build = Callable[..., Recipe]


@dataclass(frozen=True)
class Options:
    """How a growth is carried out, whatever is asked for.

    shard_bytes: largest weight file. force: replace a checkpoint that is there. verify: prove the result, where it fits in
    memory. optimizer: AdamW state as safetensors, one file for each source, grown by the dual map. allow_nonfinite: grow
    NaN and Inf as they are. family, source_heads: of sources without a config. progress, announce: called with bytes
    written, and with the plan before work starts.
    """

    shard_bytes: int = SHARD_BYTES
    force: bool = False
    verify: bool = False
    optimizer: Path_ | Sequence[Path_] | None = None
    allow_nonfinite: bool = False
    family: str | None = None
    source_heads: int | None = None
    progress: Progress = lambda _: None
    announce: Callable[[Plan], None] = lambda _: None


@dataclass(frozen=True)
class Prepared:
    """All that is settled before a byte is written."""

    sources: list[Checkpoint]
    states: list[Checkpoint]
    rates: list[dict[str, Any]]
    plan: Plan
    folder: Path
    options: Options


@contextmanager
def prepared(
    sources: Sequence[Path_],
    out: Path_ | None,
    build: Build,
    keywords: dict[str, Any],
    like: Path_ | None,
) -> Iterator[Prepared]:
    """Open, plan and check everything that can be checked; close what was opened."""
    names = {field.name for field in fields(Options)}
    options = Options(**{key: value for key, value in keywords.items() if key in names})
    request = {key: value for key, value in keywords.items() if key not in names}
    if not sources:
        raise RequestError("no source: name at least one checkpoint")
    states = _paths(options.optimizer)
    if states and len(states) != len(sources):
        raise RequestError(
            f"{len(states)} optimizer states for {len(sources)} sources; give one for each, in their order"
        )
    with ExitStack() as opened:
        checkpoints, stored = [], []
        for source in sources:
            checkpoints.append(open_source(source, options.family, options.source_heads))
            opened.callback(checkpoints[-1].close)
        for state in states:
            stored.append(open_state(Path(state)))
            opened.callback(stored[-1].close)
        headers = [headers_of(checkpoint) for checkpoint in checkpoints]
        for found, header in zip(stored, headers):
            found.tensors = split_stored(family_named(header.config.get("model_type")), found.tensors)
        notes: list[str] = []
        if like is not None:
            request, notes = _like(like, headers[0], request)
        asked = build(**request)
        text = asked.experts.text if asked.experts is not None else None
        if text is not None and not Path(text).is_file():
            raise RequestError(f"cannot read text from {text!r}: no such file")
        if asked.experts is not None and states:
            raise RequestError("a mixture of experts starts its optimizer anew; leave the optimizer's state out")
        todo = (grow_plan if asked.experts is None else upcycle_plan)(headers, asked)
        todo = replace(todo, notes=(*todo.notes, *notes))
        _check_beside(checkpoints)
        folder = (
            Path(out) if out is not None else folder_for(sources, default_name([c.name for c in checkpoints], todo))
        )
        origins = [Path(origin) for origin in (*sources, *states) if Path(origin).exists()]
        check_target(folder, origins, options.force)
        rates = []
        if stored:
            optimizer_tensors(todo, [state.tensors for state in stored])  # refuses what does not belong
            rates = [_rates(Path(state)) for state in states]
        yield Prepared(checkpoints, stored, rates, todo, folder, options)


def _check_beside(sources: Sequence[Checkpoint]) -> None:
    """Refuse sources whose files beside the weights do not go together."""
    for other in sources[1:]:
        pair = f"{sources[0].label!r} and {other.label!r}"
        conflict = tokenizer_conflict([c.folder for c in (sources[0], other) if c.folder is not None])
        if conflict:
            raise RequestError(f"{pair} have different {conflict}; growkit joins models of one tokenizer")
        conflict = modules_conflict([sources[0].folder, other.folder])
        if conflict:
            raise RequestError(f"{pair} have different {conflict}; growkit joins sentence models that go on alike")


def _like(like: Path_, source: Headers, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The request with the sizes of a target."""
    words = {"head": "heads", "kv_head": "kv_heads", "layer": "layers"}
    sizes, notes = sizes_like(like, source)
    wanted = {words.get(axis, axis): size for axis, size in sizes.items()}
    twice = [key for key in wanted if request.get(key) is not None]
    if twice:
        raise RequestError(
            f"--like {str(like)!r} says all sizes, --{twice[0].replace('_', '-')} says one again; give one"
        )
    return {**request, **wanted}, notes


def _paths(optimizer: Path_ | Sequence[Path_] | None) -> list[Path_]:
    if optimizer is None:
        return []
    return [optimizer] if isinstance(optimizer, str | Path) else list(optimizer)


def _rates(state: Path) -> dict[str, Any]:
    """The learning-rate multipliers that lie beside an optimizer state, by parameter."""
    path = state.parent / MULTIPLIERS
    found = read_json(path).get("multipliers") if path.exists() else None
    return found if isinstance(found, dict) else {}
