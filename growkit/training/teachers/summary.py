"""What is kept of a row of logits: its k largest log-probabilities, and of the rest its whole mass and m entries drawn
from it. Knows arithmetic; ignorant of files and of what is made of it.

The rest's mass is summed over the rest: 1 minus the head's sum would cancel. Its entries are drawn at evenly spaced
places of its distribution function with one random shift for each row (systematic sampling, Madow 1949), so each is
drawn m times its probability on average, and that of a large one hardly varies.
"""

import numpy as np
import torch


def block_size(entries: int) -> int:
    """Of the blocks that a row is looked at in: their maxima and sums are read first, and then only a few blocks again.

    A power of two near the row's root; a smaller one where that divides the row, which then need not be copied.
    """
    root = 1 << max(0, round(np.log2(entries) / 2))
    return next((size for size in (root, root // 2, root // 4) if size and entries % size == 0), root)


def summarised(
    logits: torch.Tensor, shifts: torch.Tensor, head: int, tail: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is kept of n rows of softmax(logits / temperature).

    logits: (n, vocabulary) float. shifts: (n,) float64 from 0 to below 1. head: k, at most the vocabulary. Returns
    (ids (n, k + m) int64, the k largest by size and then what was drawn; log-probabilities of the k (n, k); log-mass of
    the rest (n,), -inf where there is none; mean log-probability of what was drawn (n,)), in the logits' dtype.
    """
    rows, entries = logits.shape
    size = block_size(entries)
    scores = logits if temperature == 1.0 else logits / temperature
    if entries % size:
        scores = torch.nn.functional.pad(scores, (0, size - entries % size), value=-torch.inf)
    blocks = scores.reshape(rows, -1, size)
    ids = _largest(blocks, head)
    largest = scores.gather(1, ids)
    chances = torch.softmax(scores, -1)  # one pass over rows that a cache holds
    total = largest[:, :1] - torch.log(chances.gather(1, ids[:, :1]))
    chances.scatter_(1, ids, 0.0)
    ends = chances.view(blocks.shape).sum(-1).double().cumsum(-1)
    rest = ends[:, -1].to(logits.dtype)
    drawn = _drawn(chances.view(blocks.shape), ends, shifts, tail).clamp_(max=entries - 1)
    mean = torch.log(chances.gather(1, drawn)).mean(1) if tail else rest
    return torch.cat([ids, drawn], 1), largest - total, torch.log(rest), mean


def _largest(scores: torch.Tensor, head: int) -> torch.Tensor:
    """(n, head) the ids of the largest of (n, blocks, size), by size; they are in the blocks of the largest maxima."""
    _, blocks, size = scores.shape
    chosen = scores.amax(-1).topk(min(head, blocks)).indices
    inside = _read(scores, chosen).flatten(1).topk(head).indices
    return chosen.gather(1, inside // size) * size + inside % size


def _read(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(n, chosen, size) blocks of (n, blocks, size) by their numbers (n, chosen)."""
    rows, blocks, size = scores.shape
    first = torch.arange(rows, device=scores.device)[:, None] * blocks
    return scores.reshape(-1, size).index_select(0, (first + chosen).flatten()).view(*chosen.shape, size)


def _drawn(chances: torch.Tensor, ends: torch.Tensor, shifts: torch.Tensor, number: int) -> torch.Tensor:
    """(n, number) ids drawn in proportion to (n, blocks, size). ends: (n, blocks) float64, running sums of blocks."""
    _, blocks, size = chances.shape
    places = (torch.arange(number, device=ends.device) + shifts[:, None]) / max(1, number) * ends[:, -1:]
    places = torch.minimum(places, below(ends[:, -1:]))
    chosen = torch.searchsorted(ends, places, right=True).clamp_(max=blocks - 1)
    before = torch.where(chosen > 0, ends.gather(1, (chosen - 1).clamp_(min=0)), 0.0)
    running = _read(chances, chosen).double().cumsum_(-1)
    # a block's sum and that of its entries one by one are not rounded alike
    inside = torch.minimum((places - before)[:, :, None], below(running[:, :, -1:]))
    return chosen * size + (running <= inside).sum(-1).clamp_(max=size - 1)


def below(values: torch.Tensor) -> torch.Tensor:
    """The largest numbers that are smaller, where they are positive."""
    return torch.nextafter(values, torch.zeros_like(values))


def uniforms(seed: int, places: np.ndarray) -> np.ndarray:
    """Random numbers from 0 to below 1, float64, each a function of the seed and its place (any shape, int64) alone:
    SplitMix64's finaliser (Steele, Lea and Flood 2014) of the place-th step from the seed."""
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed) + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
