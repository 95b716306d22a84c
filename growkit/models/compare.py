"""How far the outputs of two models lie apart. Knows logits, hidden states and the maps of grown axes; ignorant of
files and of what difference is allowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, reduce

from growkit.checkpoint.source import PROVENANCE
from growkit.errors import CheckpointError, RequestError
from growkit.maps.axis import GATHER, AxisMap
from growkit.maps.notation import READ
from growkit.models.running import Results

Outputs = Mapping[str, torch.Tensor]  # by name, (sequences, positions, size) each


@dataclass(frozen=True)
class Pair:
    """The same outputs of source and result, (positions, size) each. compared: which."""

    compared: str
    ours: torch.Tensor
    theirs: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Distance:
    """What is measured of a pair; fields are those of a Verification."""

    compared: str
    max_difference: float
    mean_difference: float
    scale: float
    relative: float
    kl: float | None
    top1: float | None
    loss_source: float | None
    cosine: float | None


def averaged(references: Sequence[Results]) -> dict[str, torch.Tensor]:
    """The mean of what several models of one vocabulary put out; only what has one meaning in all of them.

    Raises RequestError where they have no logits.
    """
    heads = [name for name in references[0].outputs if name.endswith("logits")]
    if not heads or any(name not in other.outputs for other in references for name in heads):
        raise RequestError("several sources are compared by the mean of their logits, which these do not have")
    return {name: torch.stack([other.outputs[name] for other in references]).mean(0) for name in heads}


def on_one_footing(
    ours: Outputs, theirs: Outputs, maps: Mapping[str, AxisMap], target: str, axes: Mapping[str, str]
) -> Pair:
    """Outputs that can be subtracted: logits as they are, hidden states collapsed to the source's width.

    axes: of outputs, by name.

    Raises CheckpointError where the result does not put out what the source does, or no map says how they correspond.
    """
    heads = [name for name in ours if name.endswith("logits")]
    names = heads or [*ours]
    a, b = [], []
    for name in names:
        if name not in theirs:
            raise CheckpointError(
                f"the source puts out {name}, {target!r} only {', '.join(theirs)}; verify models of one class"
            )
        mine, grown = ours[name], theirs[name]
        if mine.shape != grown.shape and name in axes:
            axis = maps.get(axes[name])
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
        a.append(rearrange(mine, "... value -> (...) value"))
        b.append(rearrange(grown, "... value -> (...) value"))
    if len({part.shape[-1] for part in a}) > 1:  # such as masked-LM and next-sentence logits
        a, b = [part.flatten()[:, None] for part in a], [part.flatten()[:, None] for part in b]
    return Pair(" + ".join(names), torch.cat(a), torch.cat(b))


def collapse(values: torch.Tensor, axis: AxisMap) -> torch.Tensor:
    """Values over a grown axis (..., new) read back to (..., old): the sum over copies of read * value."""
    read = axis.sides[READ]
    weight = torch.from_numpy(read.amplitude * (read.mode == GATHER)).to(values.dtype)
    result = torch.zeros(*values.shape[:-1], axis.old, dtype=values.dtype)
    return result.index_add(-1, torch.from_numpy(axis.index), values * weight)


def distance(pair: Pair, reference: Results, outputs: Outputs, sequences: Sequence[torch.Tensor]) -> Distance:
    """Measure a pair. reference: a source, for what its outputs are; outputs: of the source, or of several together."""
    ours, theirs = pair.ours, pair.theirs
    difference = (ours - theirs).abs()
    scale = ours.abs().max().item()
    relative = difference.max().item() / scale if scale else difference.max().item()
    distributions = reference.vocabulary_output == pair.compared or pair.compared.endswith("logits")
    return Distance(
        compared=pair.compared,
        max_difference=difference.max().item(),
        mean_difference=difference.mean().item(),
        scale=scale,
        relative=relative if relative == relative else float("inf"),
        kl=_kl(ours, theirs) if distributions else None,
        top1=(ours.argmax(-1) == theirs.argmax(-1)).double().mean().item() if distributions else None,
        loss_source=reference.loss_of(outputs[reference.vocabulary_output]) if reference.has_loss else None,
        cosine=None if distributions else _cosine(ours, theirs, len(sequences)),
    )


def _kl(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def _cosine(ours: torch.Tensor, theirs: torch.Tensor, count: int) -> float:
    """Mean cosine of mean-pooled hidden states, over `count` sequences of equal length."""
    pooled = "(sequence token) hidden -> sequence hidden"
    a, b = (reduce(values[: len(values) // count * count], pooled, "mean", sequence=count) for values in (ours, theirs))
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().item()
