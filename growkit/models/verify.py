"""The proof: two checkpoints, the same tokens, how far apart they come out. Knows how outputs are judged; ignorant of
how they come about, and of how a checkpoint was made, except that growkit.json says what to expect.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.record import came_from_grown, promised
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import CONFIG, PROVENANCE, Checkpoint, open_checkpoint
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named, vocabulary_size
from growkit.growth.plan import Plan
from growkit.growth.sources import open_source
from growkit.maps.exactness import Exactness
from growkit.maps.map_json import maps_from_json
from growkit.models.adapters import Adapter
from growkit.models.compare import averaged, distance, on_one_footing
from growkit.models.images import image_shape, sound_shape
from growkit.models.running import Results, loadable, sequences_for, tokenizer_of
from growkit.units import size

Put = Callable[[Any], Any]  # what puts something on a model
# largest difference over the largest value that rounding explains, by the dtype that is stored
EXACT_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
NEAR_TOLERANCE = 0.25


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a comparison measured."""

    source: str
    target: str
    compared: str  # which output
    text: str  # name of the text, or "random", or "random images"
    tokens: int  # or images
    exactness: str  # what the result promises
    max_difference: float  # absolute, between that output of both
    mean_difference: float
    scale: float  # largest absolute value of the output in the source
    relative: float  # max_difference / scale
    tolerance: float | None  # the most that relative may be; None: measured, not judged
    # each of the next five is None where it has no meaning for the model
    kl: float | None  # mean Kullback-Leibler divergence from the source's distribution, nats
    top1: float | None  # share of positions where both choose alike
    loss_source: float | None  # mean nats per token
    loss_target: float | None
    cosine: float | None  # of mean-pooled hidden states
    keys: tuple[str, ...]  # names that transformers missed or did not expect in the result but not in the source
    members: tuple[
        tuple[str, float | None], ...
    ] = ()  # each of several sources with its loss; the rest is of their mean
    notes: tuple[str, ...] = ()  # what was left out of the comparison, and why

    @property
    def ok(self) -> bool:
        """Within tolerance, and loaded with no missing and no unexpected keys."""
        return not self.keys and (self.tolerance is None or self.relative <= self.tolerance)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    source: str | Path | Sequence[str | Path],
    target: str | Path,
    text: str | Path | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    family: str | None = None,
    source_heads: int | None = None,
    *,
    before_has: Adapter | None = None,
    after_has: Adapter | None = None,
    exactness: Exactness | None = None,
) -> Verification:
    """Load both in stock transformers, run the same tokens, compare logits (hidden states where there is no head).

    source: one checkpoint, or several, whose logits are then averaged. text: a file of real text, tokenised by the
    source's tokenizer; without it, random tokens. tolerance: largest relative difference allowed; by default what the
    result's exactness and dtype promise. before_has, after_has: what is put on the source and on the target. exactness:
    of the result, where it is not its growkit.json that says it. Raises CheckpointError or RequestError for what cannot
    be loaded or compared.
    """
    names = [source] if isinstance(source, str | Path) else list(source)
    befores = [open_source(name, family, source_heads) for name in names]
    after = open_checkpoint(target)
    path = after.folder / PROVENANCE if after.folder else None
    provenance = read_json(path) if path is not None and path.exists() else {}
    if exactness is None:
        hashes = [sorted(before.hashes().values()) for before in befores] if came_from_grown(provenance) else [None]
        exactness = max(promised(provenance, files) for files in hashes)
    if text is not None and not Path(text).is_file():
        raise RequestError(f"cannot read text from {str(text)!r}: no such file")
    dtypes = {tensor.dtype for tensor in after.tensors.values() if tensor.dtype.is_floating_point}
    puts = (_putting(before_has), _putting(after_has))
    references, result, tokens = _run(befores, after, torch.float64 in dtypes, text, seed, puts)
    outputs = references[0].outputs if len(references) == 1 else averaged(references)
    maps = maps_from_json(provenance.get("maps", {}))
    pair = on_one_footing(outputs, result.outputs, maps, str(target), references[0].axes)
    pixels = tokens[0].is_floating_point()
    measured = distance(pair, references[0], outputs, tokens)
    return Verification(
        source=" + ".join(before.label for before in befores),
        target=str(target),
        text=("random images" if pixels else "random") if text is None else Path(text).name,
        tokens=len(tokens) if pixels else sum(sequence.numel() for sequence in tokens),
        exactness=str(exactness),
        tolerance=_allowed(exactness, dtypes) if tolerance is None else tolerance,
        loss_target=result.loss,
        keys=tuple(key for key in result.keys if key not in references[0].keys),
        notes=tuple(f"{b.label!r}: {r.note}" for b, r in zip(befores, references) if r.note),
        members=tuple((b.label, r.loss) for b, r in zip(befores, references)) if len(befores) > 1 else (),
        **vars(measured),
    )


def _run(
    befores: Sequence[Checkpoint], after: Checkpoint, double: bool, text: str | Path | None, seed: int,
    puts: tuple[Put, Put],
) -> tuple[list[Results], Results, list[torch.Tensor]]:  # fmt: skip
    """What sources and result make of the same tokens, and these: sequences that fit the first source. puts: what puts
    something on the sources and on the result."""
    with loadable(befores[0]) as folder:
        config = read_model_config(folder / CONFIG)
        if text is not None and family_named(config.get("model_type")).reads_pixels:
            raise RequestError(f"{befores[0].label!r} reads images, not text: leave --text out")
        tokenizer = tokenizer_of(folder) if text is not None else None
        sequences = sequences_for(config, tokenizer, text, seed, befores[0].label)

    def run(checkpoint: Checkpoint, settled: bool) -> Results:
        with loadable(checkpoint) as folder:
            own = read_model_config(folder / CONFIG)
            _check_comparable(own, config, sequences, checkpoint.label)
            dtype = torch.float64 if double else torch.float32
            return Results(own, folder, dtype, sequences, tokenizer, seed, settled, puts[not settled])

    # what a result lacks and its source has is a fault, and shows
    return [run(before, True) for before in befores], run(after, False), sequences


def _putting(adapter: Adapter | None) -> Put:
    return (lambda model: model) if adapter is None else adapter.put_on


def _check_comparable(config: dict[str, Any], first: dict[str, Any], sequences: list[torch.Tensor], label: str) -> None:
    """Refuse a checkpoint that the source's tokens do not fit."""
    family, pixels = family_named(config.get("model_type")), sequences[0].is_floating_point()
    if pixels or family.reads_pixels:
        if not (pixels and family.reads_pixels) or image_shape(config) != tuple(sequences[0].shape):
            raise CheckpointError(f"{label!r} does not read images as the source does; nothing to compare them on")
        return
    if family.frames and sound_shape(config) != sound_shape(first):
        raise CheckpointError(f"{label!r} does not hear sounds as the source does; nothing to compare them on")
    positions = family.longest(config)
    if isinstance(positions, int) and any(len(sequence) > positions for sequence in sequences):
        raise CheckpointError(f"{label!r} has {positions} positions, fewer than the source; nothing to compare them on")
    if vocabulary_size(config) != vocabulary_size(first):
        raise CheckpointError(
            f"{label!r} has a vocabulary of {vocabulary_size(config)}, the source of {vocabulary_size(first)}; only"
            " models of one vocabulary can be compared"
        )


def _allowed(exactness: Exactness, dtypes: set[torch.dtype]) -> float | None:
    """The largest relative difference that a promise and the coarsest dtype allow; None where nothing is promised."""
    if exactness == Exactness.EXACT:
        return max((EXACT_TOLERANCE.get(dtype, 0.1) for dtype in dtypes), default=1e-4)
    return NEAR_TOLERANCE if exactness == Exactness.NEAR else None


def fits_in_memory(plan: Plan) -> str:
    """Why a result is too large to verify here, or '' where it fits: the larger model in float32 and some room."""
    return room_for(max(plan.parameters()), "verifying", "; run growkit verify where there is more")


def room_for(parameters: int, purpose: str, cure: str = "") -> str:
    """Why a model of so many parameters cannot be run here in float32, or '' where it can."""
    needed = 1.5 * 4 * parameters + 1e9
    available = _available_bytes()
    if needed <= available:
        return ""
    return f"{purpose} needs about {size(needed)} of memory and {size(available)} are free{cure}"


def _available_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2
