"""Everything that is settled before a byte is written: sources opened, the request planned, the output checked. Knows
the order of things; ignorant of how a plan is carried out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.companions import modules_conflict, sentence_modules
from growkit.checkpoint.new_folder import Contents
from growkit.checkpoint.same_tokenizer import unlike
from growkit.checkpoint.source import Checkpoint, open_state
from growkit.checkpoint.stream import Progress
from growkit.checkpoint.writer import check_target
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.families.stock_config import check_taken
from growkit.growth.grow_plan import grow_plan
from growkit.growth.learned_plan import as_learned
from growkit.growth.like import with_sizes
from growkit.growth.names import default_name, folder_for
from growkit.growth.optimizer import kept_state, optimizer_tensors, rates_beside, read_rates
from growkit.growth.plan import Plan
from growkit.growth.request import DIRECT_COPY, Recipe
from growkit.growth.sources import headers_of, open_source, split_stored
from growkit.growth.stored_names import names_of_today, prefixed_like
from growkit.growth.untied import tied_alike
from growkit.growth.upcycle.upcycle_plan import upcycle_plan

SHARD_BYTES = 5_000_000_000
Path_ = str | Path
AUTO, NOTHING_BESIDE = "auto", "none"  # instead of files of AdamW's state: what lies beside the sources, and nothing
LEFT_OUT = "the optimizer's state beside the weights grows by copies alone, and is left out"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a growth is carried out, whatever is asked for."""

    shard_bytes: int = SHARD_BYTES  # largest weight file
    force: bool = False  # replace a checkpoint that is there
    optimizer: Path_ | Sequence[Path_] | None = None  # AdamW states by the dual map: files, AUTO or NOTHING_BESIDE
    allow_nonfinite: bool = False  # grow NaN and Inf as they are
    family: str | None = None  # of sources without a config
    source_heads: int | None = None  # query heads of sources without a config
    dry_run: bool = False  # plan and check everything, and write nothing
    proof: bool = False  # a proof will follow: transformers is asked before whether it takes the configs
    progress: Progress = lambda _: None  # called with bytes written
    announce: Callable[[Plan], None] = lambda _: None  # called with the plan before anything is written


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that is settled before a byte is written."""

    sources: list[Checkpoint]
    states: list[Checkpoint]
    rates: list[dict[str, Any]]
    plan: Plan
    folder: Path
    replaces: Contents  # what lies there and may give way
    options: Options


@contextmanager
def prepared(sources: Sequence[Path_], out: Path_ | None, recipe: Recipe, options: Options) -> Iterator[Prepared]:
    """Open, plan and check everything that can be checked; close what was opened.

    out: the folder to make; None: one here, named by what changes. Raises CheckpointError or RequestError.
    """
    if not sources:
        raise RequestError("no source: name at least one checkpoint")
    with ExitStack() as opened:
        checkpoints, stored = [], []
        for source in sources:
            checkpoints.append(open_source(source, options.family, options.source_heads))
            opened.callback(checkpoints[-1].close)
        states = _states(options.optimizer, checkpoints, recipe.learn is not None)
        for state in states:
            stored.append(open_state(Path(state)))
            opened.callback(stored[-1].close)
        checkpoints = tied_alike(checkpoints)
        _name_alike(checkpoints)
        headers = [headers_of(checkpoint) for checkpoint in checkpoints]
        for moments, header in zip(stored, headers):
            kind = family_named(header.config.get("model_type"))
            moments.tensors = split_stored(kind, names_of_today(moments.tensors))
        asked, notes = with_sizes(recipe, headers[0])
        text = asked.experts.text if asked.experts is not None else None
        if text is not None and not Path(text).is_file():
            raise RequestError(f"cannot read text from {text!r}: no such file")
        todo = (grow_plan if asked.experts is None else upcycle_plan)(headers, asked)
        todo = replace(todo, notes=(*todo.notes, *notes))
        if asked.learn is not None:
            todo = as_learned(todo)
            if kept_state(checkpoints[0].folder) is not None:
                todo = replace(todo, notes=(*todo.notes, LEFT_OUT))
        todo = replace(todo, notes=(*todo.notes, *_check_beside(checkpoints)))
        if todo.recipe.corners:
            _check_alone(checkpoints, todo, options)
            if stored:
                states, stored, todo = [], [], replace(todo, notes=(*todo.notes, LEFT_OUT))
        if options.proof:
            for checkpoint in checkpoints:
                check_taken(checkpoint.config or {}, f"the config.json of {checkpoint.label!r}")
            check_taken(todo.config, "the config.json that the result would have")
        folder = (
            Path(out) if out is not None else folder_for(sources, default_name([c.name for c in checkpoints], todo))
        )
        origins = [Path(origin) for origin in (*sources, *states) if Path(origin).exists()]
        replaces = check_target(folder, origins, options.force)
        rates = []
        if stored:
            try:
                optimizer_tensors(todo, [state.tensors for state in stored])  # refuses what does not belong
            except CheckpointError as error:
                if _words(options.optimizer) == [AUTO]:
                    raise CheckpointError(
                        f"{error}; --optimizer none grows without the state that lies there"
                    ) from None
                raise
            if _words(options.optimizer) == [AUTO]:
                todo = replace(todo, notes=(*todo.notes, _found(states)))
            rates = [read_rates(rates_beside(Path(state))) for state in states]
        yield Prepared(
            sources=checkpoints, states=stored, rates=rates, plan=todo, folder=folder, replaces=replaces, options=options
        )  # fmt: skip


def _check_alone(sources: Sequence[Checkpoint], plan: Plan, options: Options) -> None:
    """Refuse what a corner of a new model has no place for. Raises RequestError."""
    if _words(options.optimizer) not in ([], [AUTO], [NOTHING_BESIDE]):
        raise RequestError(f"--optimizer FILE grows by copies, and --method {DIRECT_COPY} makes none: leave it out")
    folders = [source.folder for source in sources if source.folder is not None]
    dense = any(kind == "Dense" for folder in folders for kind, _ in sentence_modules(folder))
    if dense and not plan.growth.maps["hidden"].is_identity:
        raise RequestError(
            f"{sources[0].label!r} is a sentence model with a Dense layer of its own, which transformers has no new weights"
            f" for; take another --method than {DIRECT_COPY}"
        )


def _name_alike(sources: Sequence[Checkpoint]) -> None:
    """Let sources that become one have their tensors under the first one's names."""
    for other in sources[1:]:
        family = family_named((other.config or {}).get("model_type"))
        other.tensors = prefixed_like(family, sources[0].tensors, other.tensors)


def _check_beside(sources: Sequence[Checkpoint]) -> list[str]:
    """Refuse sources whose files beside the weights are unsound or do not go together; returns notes on tokenizers."""
    modules_conflict([source.folder for source in sources[:1]])
    notes = []
    for other in sources[1:]:
        pair = f"{sources[0].label!r} and {other.label!r}"
        tokens, note = unlike((sources[0].label, other.label), (sources[0].folder, other.folder))
        if tokens:
            raise RequestError(f"{tokens}; growkit joins models of one tokenizer")
        notes += [f"{note}; the result has the first's"] if note else []
        conflict = modules_conflict([sources[0].folder, other.folder])
        if conflict:
            raise RequestError(f"{pair} have different {conflict}; growkit joins sentence models that go on alike")
    return notes


def _states(asked: Path_ | Sequence[Path_] | None, sources: Sequence[Checkpoint], learned: bool) -> list[Path_]:
    """The files of AdamW's state that grow along, none by learned maps. Raises RequestError where not every source has
    one of those asked for, or none can grow."""
    words = _words(asked)
    if learned and words not in ([], [AUTO], [NOTHING_BESIDE]):
        raise RequestError("--optimizer FILE grows by exact maps; with --learn training begins with a state of its own")
    if learned:
        return []
    if words == [AUTO]:
        beside = [kept_state(source.folder) for source in sources]
        return [] if None in beside else [path for path in beside if path is not None]
    if words == [NOTHING_BESIDE]:
        return []
    if words and len(words) != len(sources):
        raise RequestError(
            f"{len(words)} optimizer states for {len(sources)} sources; give one for each, in their order"
        )
    return words


def _words(asked: Path_ | Sequence[Path_] | None) -> list[Path_]:
    return [] if asked is None else [asked] if isinstance(asked, str | Path) else list(asked)


def _found(states: Sequence[Path_]) -> str:
    files = " and ".join(repr(str(state)) for state in states)
    return f"the optimizer's state lies beside the weights and grows along ({files}); --optimizer none leaves it out"
