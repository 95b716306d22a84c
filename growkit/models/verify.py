"""The proof: two checkpoints, the same tokens, how far apart they come out. Knows transformers' models; ignorant of how a
checkpoint was made, except that growkit.json says what to expect and how a grown hidden axis is read.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.record import came_from_grown, promised
from growkit.checkpoint.source import CONFIG, PROVENANCE, Checkpoint, open_checkpoint, read_json
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.growth.plan import Plan
from growkit.growth.sources import open_source
from growkit.maps.axis import GATHER, AxisMap
from growkit.maps.map_json import maps_from_json
from growkit.maps.notation import READ
from growkit.models.running import Results, loadable, sequences_for, tokenizer_of

# largest difference over the largest value that rounding explains, by the dtype that is stored
EXACT_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
NEAR_TOLERANCE = 0.25
AXIS_OF = {"last_hidden_state": "hidden", "pooler_output": "pooled"}


@dataclass(frozen=True)
class Verification:
    """What a comparison measured.

    compared: which output. max_difference, mean_difference: absolute, between that output of both. scale: its largest
    absolute value in the source. relative: max_difference / scale, judged against tolerance (None: measured, not
    judged). kl: mean Kullback-Leibler divergence from the source's distribution, nats; top1: share of positions where
    both choose alike; loss_source, loss_target: mean nats per token; cosine: of mean-pooled hidden states; each None
    where it has no meaning for the model. keys: names transformers missed or did not expect in the result but
    not in the source. members: where there are several sources, each one's loss; the rest then is of their mean logits.
    """

    source: str
    target: str
    compared: str
    text: str
    tokens: int
    exactness: str
    max_difference: float
    mean_difference: float
    scale: float
    relative: float
    tolerance: float | None
    kl: float | None
    top1: float | None
    loss_source: float | None
    loss_target: float | None
    cosine: float | None
    keys: tuple[str, ...]
    members: tuple[tuple[str, float | None], ...] = ()

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
) -> Verification:
    """Load both in stock transformers, run the same tokens, compare logits (hidden states where there is no head).

    source: one checkpoint, or several, whose logits are then averaged. text: a file of real text, tokenised by the
    source's tokenizer; without it, random tokens. tolerance: largest relative difference allowed; by default what the
    result's exactness and dtype promise. Raises CheckpointError or RequestError for what cannot be loaded or compared.
    """
    names = [source] if isinstance(source, str | Path) else list(source)
    befores = [open_source(name, family, source_heads) for name in names]
    after = open_checkpoint(target)
    dtypes = {tensor.dtype for tensor in after.tensors.values() if tensor.dtype.is_floating_point}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    path = after.folder / PROVENANCE if after.folder else None
    provenance = read_json(path) if path is not None and path.exists() else {}
    hashes = [sorted(before.hashes().values()) for before in befores] if came_from_grown(provenance) else [None]
    exactness = str(max(promised(provenance, files) for files in hashes))
    if text is not None and not Path(text).is_file():
        raise RequestError(f"cannot read text from {str(text)!r}: no such file")
    with loadable(befores[0]) as folder:
        config = read_json(folder / CONFIG)
        tokenizer = tokenizer_of(folder) if text is not None else None
        sequences = sequences_for(config, tokenizer, text, seed)

    def run(checkpoint: Checkpoint) -> Results:
        with loadable(checkpoint) as folder:
            own = read_json(folder / CONFIG)
            _check_comparable(own, config, sequences, checkpoint.label)
            return Results(own, folder, dtype, sequences, tokenizer, seed)

    references, result = [run(before) for before in befores], run(after)
    reference = references[0]
    outputs = reference.outputs if len(references) == 1 else _averaged(references)
    compared, ours, theirs = _comparable(
        outputs, result.outputs, maps_from_json(provenance.get("maps", {})), str(target)
    )
    difference = (ours - theirs).abs()
    scale = ours.abs().max().item()
    relative = difference.max().item() / scale if scale else difference.max().item()
    if tolerance is None:
        coarsest = max((EXACT_TOLERANCE.get(d, 0.1) for d in dtypes), default=1e-4)
        tolerance = {"exact": coarsest, "near": NEAR_TOLERANCE}.get(exactness)
    distributions = reference.vocabulary_output == compared or compared.endswith("logits")
    loss = reference.loss_of(outputs[reference.vocabulary_output]) if reference.has_loss else None
    return Verification(
        " + ".join(before.label for before in befores),
        str(target),
        compared,
        "random" if text is None else Path(text).name,
        sum(sequence.numel() for sequence in sequences),
        exactness,
        difference.max().item(),
        difference.mean().item(),
        scale,
        relative if relative == relative else float("inf"),
        tolerance,
        _kl(ours, theirs) if distributions else None,
        (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item() if distributions else None,
        loss,
        result.loss,
        None if distributions else _cosine(ours, theirs, sequences),
        tuple(key for key in result.keys if key not in reference.keys),
        tuple((b.label, r.loss) for b, r in zip(befores, references)) if len(befores) > 1 else (),
    )


def _averaged(references: list[Results]) -> dict[str, torch.Tensor]:
    """The mean of what several models of one vocabulary put out; only what has one meaning in all of them."""
    heads = [name for name in references[0].outputs if name.endswith("logits")]
    if not heads or any(name not in other.outputs for other in references for name in heads):
        raise RequestError("several sources are compared by the mean of their logits, which these do not have")
    return {name: torch.stack([other.outputs[name] for other in references]).mean(0) for name in heads}


def _check_comparable(config: dict[str, Any], first: dict[str, Any], sequences: list[torch.Tensor], label: str) -> None:
    """Refuse a checkpoint that the source's tokens do not fit."""
    positions = family_named(config.get("model_type")).longest(config)
    if isinstance(positions, int) and any(len(sequence) > positions for sequence in sequences):
        raise CheckpointError(f"{label!r} has {positions} positions, fewer than the source; nothing to compare them on")
    if config.get("vocab_size") != first.get("vocab_size"):
        raise CheckpointError(
            f"{label!r} has a vocabulary of {config.get('vocab_size')}, the source of {first.get('vocab_size')}; only"
            " models of one vocabulary can be compared"
        )


def fits_in_memory(plan: Plan) -> str:
    """Why a result is too large to verify here, or '' where it fits: the larger model in float32 and some room."""
    return room_for(max(plan.parameters()), "verifying", "; run growkit verify where there is more")


def room_for(parameters: int, purpose: str, cure: str = "") -> str:
    """Why a model of so many parameters cannot be run here in float32, or '' where it can."""
    needed = 1.5 * 4 * parameters + 1e9
    available = _available_bytes()
    if needed <= available:
        return ""
    return f"{purpose} needs about {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free{cure}"


def _comparable(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], maps: dict[str, AxisMap], target: str
) -> tuple[str, torch.Tensor, torch.Tensor]:
    """The outputs of both on one footing: logits as they are, hidden states collapsed to the source's width."""
    heads = [name for name in ours if name.endswith("logits")]
    names = heads or [name for name in ours if name in AXIS_OF]
    a, b = [], []
    for name in names:
        if name not in theirs:
            raise CheckpointError(
                f"the source puts out {name}, {target!r} only {', '.join(theirs)}; verify models of one class"
            )
        mine, grown = ours[name], theirs[name]
        if mine.shape != grown.shape and name in AXIS_OF:
            axis = maps.get(AXIS_OF[name])
            if axis is None or axis.old != mine.shape[-1] or axis.new != grown.shape[-1]:
                raise CheckpointError(
                    f"{target!r} has hidden states of {grown.shape[-1]} where the source has {mine.shape[-1]}, and no"
                    f" {PROVENANCE} that says how they correspond; verify against the checkpoint it was grown from"
                )
            grown = collapse(grown, axis)
        if mine.shape != grown.shape:
            raise CheckpointError(
                f"{name} has shape {list(grown.shape)} in {target!r} and {list(mine.shape)} in the source"
            )
        a.append(mine.flatten(0, -2))
        b.append(grown.flatten(0, -2))
    if len({part.shape[-1] for part in a}) > 1:  # such as masked-LM and next-sentence logits
        a, b = [part.flatten()[:, None] for part in a], [part.flatten()[:, None] for part in b]
    return " + ".join(names), torch.cat(a), torch.cat(b)


def collapse(values: torch.Tensor, axis: AxisMap) -> torch.Tensor:
    """Values over a grown axis (..., new) read back to (..., old): the sum over copies of read * value."""
    read = axis.sides[READ]
    weight = torch.from_numpy(read.amplitude * (read.mode == GATHER)).to(values.dtype)
    result = torch.zeros(*values.shape[:-1], axis.old, dtype=values.dtype)
    return result.index_add(-1, torch.from_numpy(axis.index), values * weight)


def _kl(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def _cosine(ours: torch.Tensor, theirs: torch.Tensor, sequences: list[torch.Tensor]) -> float:
    """Mean cosine of mean-pooled hidden states, over sequences of equal length."""
    count = len(sequences)
    a, b = (values[: len(values) // count * count].unflatten(0, (count, -1)).mean(1) for values in (ours, theirs))
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().item()


def _available_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2
