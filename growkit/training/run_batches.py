"""Where a run's batches come from: text in windows, or conversations in rows, in each stage those of its tasks. Knows
what a dataset holds; ignorant of what is learned from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from growkit.data.batches import Batch, BatchSource
from growkit.data.domains import Domains
from growkit.data.packed_batches import PackedBatches, RowCounts
from growkit.data.packing import Mixing
from growkit.data.tokens import TEMPLATE, Tokens, open_tokens
from growkit.errors import RequestError
from growkit.families import Family
from growkit.training.settings import Settings
from growkit.training.stages import Stage, place

FEW = 10  # steps; a run of less hardly moves anything


@dataclass
class StagedBatches:
    """In each stage of a run the batches of its own source; otherwise those of the first, which is over all tasks."""

    sources: Sequence[BatchSource]
    stages: Sequence[Stage]

    def __post_init__(self) -> None:
        self.size: int = self.sources[0].size
        self.domains: Domains | None = self.sources[0].domains

    @property
    def windows(self) -> int:
        """How many rows hold everything once."""
        return self.sources[0].windows

    def rows(self, step: int, first: int, count: int) -> Batch:
        """Rows of a step's batch."""
        source, into = self._at(step)
        return source.rows(into, first, count)

    def at(self, numbers: Sequence[int]) -> Batch:
        """Rows by their numbers."""
        return self.sources[0].at(numbers)

    def predicted(self, step: int) -> int:
        """How many tokens a step predicts."""
        source, into = self._at(step)
        return source.predicted(into)

    def _at(self, step: int) -> tuple[BatchSource, int]:
        """The source of a step, and which step of that source's it is."""
        number, _ = place(tuple(self.stages), step)
        own = self.sources[number]
        before = sum(stage.steps for stage, source in zip(self.stages[:number], self.sources) if source is not own)
        return own, step - before


@dataclass(frozen=True, kw_only=True)
class RunBatches:
    """What a run learns from, and what validates it. rows: what became of conversations; notes: what a person should
    know of that."""

    train: BatchSource
    val: BatchSource | None
    rows: RowCounts | None = None
    notes: tuple[str, ...] = ()


def run_batches(
    settings: Settings, train: Tokens, val: Tokens | None, family: Family, windows: Callable[[Tokens], BatchSource]
) -> RunBatches:
    """The batches of a run's two splits. windows: makes batches of text.

    Raises RequestError for conversations where they cannot be learned, and for tasks of data that has none.
    """
    named = next((stage for stage in settings.stages if stage.tasks), None)
    if not train.is_chat:
        if named is not None or settings.mix is not None:
            what = f"stage {named.name!r} names tasks" if named is not None else "--mix mixes tasks"
            raise RequestError(
                f"{what}, which are those of conversations, and {settings.data!r} holds text; growkit tokenize --chat"
                " name=PATH ... makes a dataset of tasks"
            )
        return RunBatches(train=windows(train), val=None if val is None else windows(val))
    if settings.command == "pretrain":
        raise RequestError(
            f"{settings.data!r} holds conversations, of which answers alone are learned; growkit tune does that"
        )
    if not family.causal:
        raise RequestError(
            f"conversations are learned by models that predict the next token, not by {family.model_type}"
        )

    if named is not None and train.domains is None:
        raise RequestError(
            f"stage {named.name!r} names tasks, and the conversations of {settings.data!r} have no tags; growkit tokenize"
            " --chat name=PATH ... gives them"
        )

    def rows(tokens: Tokens, mixing: Mixing) -> PackedBatches:
        return packed(tokens, settings.seq_len, settings.batch_size, family, settings.seed, mixing)

    mixing = mixing_of(settings.mix)
    every = {tasks: rows(train, replace(mixing, only=tasks)) for tasks in {(), *(s.tasks for s in settings.stages)}}
    whole = every[()]
    learned: BatchSource = StagedBatches([every[s.tasks] for s in settings.stages], settings.stages) if named else whole
    return RunBatches(
        train=learned,
        val=None if val is None else rows(val, Mixing()),
        rows=whole.counts,
        notes=(*whole.notes(f"--seq-len {settings.seq_len}"), *_few_steps(settings, whole.windows)),
    )


def _few_steps(settings: Settings, rows: int) -> list[str]:
    """What a person should know whose conversations are gone through in hardly a step."""
    if settings.steps >= FEW or settings.steps * settings.batch_size < rows:
        return []
    return [
        f"all conversations lie in {rows:,} rows, of which a step takes {settings.batch_size}: {settings.steps} steps may"
        " teach little; a smaller --batch-size gives more of them"
    ]


def template_of(tokens: Tokens) -> Path | None:
    """The chat template that a dataset was made with instead of the tokenizer's own, where there is one."""
    path = tokens.path.parent / TEMPLATE
    return path if tokens.is_chat and path.is_file() else None


def rows_in(data: str | Path, length: int, family: Family) -> int | None:
    """How many rows of a length hold all conversations of a dataset once; None of text. Raises RequestError where none
    of them can be learned, CheckpointError for what cannot be read."""
    tokens = open_tokens(data)
    return packed(tokens, length, 1, family).windows if tokens.is_chat else None


def packed(
    tokens: Tokens,
    length: int,
    size: int,
    family: Family,
    seed: int = 0,
    mixing: Mixing = Mixing(),  # noqa: B008
) -> PackedBatches:
    """Conversations in rows, as a family's models keep them apart."""
    return PackedBatches(tokens, length=length, size=size, seed=seed, packs=family.packs, mixing=mixing)


def mixing_of(mix: float | dict[str, float] | None) -> Mixing:
    """How tasks are mixed by what a run is told: a temperature, weights, or nothing."""
    if isinstance(mix, dict):
        return Mixing(weights=mix)
    return Mixing() if mix is None else Mixing(temperature=mix)


def asked_mix(words: float | str | Sequence[str] | None) -> float | dict[str, float] | None:
    """A temperature, or weights by task, of what people write: "2", or "name=0.7" for each. Raises RequestError."""
    if words is None or isinstance(words, int | float):
        return words
    listed = [words] if isinstance(words, str) else list(words)
    pairs = [str(word).rpartition("=") for word in listed]
    try:
        if len(pairs) == 1 and not pairs[0][1]:
            return float(pairs[0][2])
        weights = {name: float(weight) for name, _, weight in pairs}
    except ValueError:
        weights = {}
    if not weights or "" in weights or len(weights) < len(pairs):
        raise RequestError(
            f"--mix {' '.join(map(str, listed))!r} should be a temperature such as 2, or name=weight for each task"
        )
    return weights
