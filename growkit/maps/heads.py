"""Maps for the axes inside attention: query heads in their key-value groups, and the slots of one head. Knows how heads
pair up and how rotary positions pair slots; ignorant of tensors, families and files.

Two things make these axes special. Query head i reads key-value head i // q_per_kv, so both must move together; and the
score of a head is a sum over its slots divided by sqrt(head_dim), so growing head_dim must multiply q by k by
sqrt(new / old) to give it back.
"""

from dataclasses import dataclass, replace

import numpy as np
from einops import rearrange

from growkit.maps.axis import (
    FREE,
    GATHER,
    AxisMap,
    Side,
    axis_map,
    copies,
    counts,
    cyclic_index,
    identity,
    random_index,
)
from growkit.maps.notation import WRITE


@dataclass(frozen=True)
class HeadIndex:
    """Where each new query head and each new key-value head comes from; always consistent with one another."""

    query: np.ndarray
    key_value: np.ndarray


def grouped_heads(
    old: tuple[int, int], new: tuple[int, int], generator: np.random.Generator | None = None
) -> HeadIndex | None:
    """Grow (kv heads, query heads per kv head) from `old` to `new`, or None where no such map exists.

    New key-value heads copy whole groups; new query heads go inside each group, never at the end (that would regroup
    all of them). Where groups get smaller, an old group is dealt out to several copies of its key-value head, which is
    repeat_interleave when it divides evenly. Possible exactly when old_kv * ceil(old_group / new_group) <= new_kv.
    With a generator the copies are drawn at random (bert2BERT's mapping), else cyclic.
    """
    (old_kv, old_group), (new_kv, new_group) = old, new
    chunks = -(-old_group // new_group)  # ceiling
    parts = old_kv * chunks
    if parts > new_kv:
        return None

    def draw(size: int, target: int) -> np.ndarray:
        return cyclic_index(size, target) if generator is None else random_index(size, target, generator)

    part = draw(parts, new_kv)
    key_value, chunk = part // chunks, part % chunks
    if chunks == 1:
        within = np.broadcast_to(draw(old_group, new_group), (new_kv, new_group))
    else:
        within = (chunk[:, None] * new_group + np.arange(new_group)[None, :]) % old_group
    query = rearrange(key_value[:, None] * old_group + within, "kv_head q_per_kv -> (kv_head q_per_kv)")
    return HeadIndex(query, key_value)


@dataclass(frozen=True, kw_only=True)
class HeadSlots:
    """The maps of one head's slots as query, key and value, and what the config must say for them to hold.

    rope_power: the rotary base must be raised to this power.
    """

    query: AxisMap
    key: AxisMap
    value: AxisMap
    rope_power: float = 1.0
    name: str = "kept"


def kept_slots(size: int) -> HeadSlots:
    """head_dim as it was."""
    return HeadSlots(query=identity(size), key=identity(size), value=identity(size))


def copied_slots(old: int, new: int, rotary: int, score: float) -> HeadSlots:
    """Grow the slots that carry no rotary position, by copies; the first `rotary` slots stay where they are.

    score: what the product q*k must be multiplied by, sqrt(new / old) where the softmax divides by sqrt(head_dim).
    Any size is exact: a slot with c copies carries sqrt(score / c) in q and in k. Where all old slots turn there is
    none to copy: new keys are 0, queries free.
    """
    value = copies(old, cyclic_index(old, new))
    if rotary == old:
        kept = np.arange(new) < old
        query = axis_map(
            "added slots", old, value.index, np.where(kept, score, 1.0), kept / score,
            modes={WRITE: np.where(kept, GATHER, FREE)},
        )  # fmt: skip
        return HeadSlots(
            query=query, key=axis_map("added slots", old, value.index, kept, kept), value=value, name="added slots"
        )
    plain = rotary + cyclic_index(old - rotary, new - rotary)
    index = np.concatenate([np.arange(rotary), plain])
    number = counts(index, old)
    amplitude = np.sqrt(score / number)
    both = axis_map("copied slots", old, index, amplitude, 1.0 / (amplitude * number))
    return HeadSlots(query=both, key=both, value=value, name="copied slots")


def rotary_slots(old: int, new: int, score: float, by_index: bool) -> HeadSlots:
    """Grow the slots of a fully rotary head (half-split layout: slots j and j + old/2 turn together).

    Copies are impossible, since each pair has its own frequency base**(-2j/head_dim). Old pairs keep theirs either by
    index (new is a multiple n of old: pair j becomes pair n*j, base unchanged) or by theta (pairs stay first, and the
    base is raised to the power new/old). The other slots: keys 0, so that the score is unchanged, queries free.
    """
    half, new_half = old // 2, new // 2
    pair = np.arange(new_half)
    if by_index:
        factor = new // old
        carries, source = pair % factor == 0, pair // factor
    else:
        carries, source = pair < half, pair % half
    index = np.concatenate([source, source + half])
    old_slot = np.concatenate([carries, carries])
    write = np.where(old_slot, score, 1.0)
    query = axis_map(
        "rotary slots", old, index, write, old_slot / score, modes={WRITE: np.where(old_slot, GATHER, FREE)}
    )
    key = axis_map("rotary slots", old, index, old_slot, old_slot)
    value = copies(old, cyclic_index(old, new))
    name = "rotary slots by index" if by_index else "rotary slots by theta"
    return HeadSlots(query=query, key=key, value=value, rope_power=1.0 if by_index else new / old, name=name)


def normed_partly_rotary_slots(old: int, new: int, rotary: int, score: float) -> HeadSlots:
    """Grow slots under a q- and k-norm (RMS) of which the first `rotary` turn and stay where they are, new = n * old.

    All slots get n copies, so the norms see the same mean square. The rotary ones' others stand last, where nothing
    turns: their k gain is 0, their q gain free. Of the plain ones each copy carries its part.
    """
    factor, plain = new // old, old - rotary
    index = np.concatenate(
        [np.arange(rotary), rotary + cyclic_index(plain, plain * factor), cyclic_index(rotary, rotary * (factor - 1))]
    )
    place = np.arange(new)
    parts = np.where(place < rotary, 1.0, np.where(place < rotary + plain * factor, 1.0 / factor, 0.0))
    gain = np.sqrt(score * parts)
    query = axis_map("normed slots", old, index, 1.0, parts, gain=np.where(parts > 0, gain, 1.0))
    key = axis_map("normed slots", old, index, 1.0, parts, gain=gain)
    value = copies(old, cyclic_index(old, new))
    return HeadSlots(query=query, key=key, value=value, name="normed slots")


def in_pairs(slots: HeadSlots) -> HeadSlots:
    """The same for heads whose neighbouring slots 2j and 2j + 1 turn together, where `slots` has j and j + half."""

    def neighbours(axis: AxisMap) -> AxisMap:
        order = rearrange(
            np.arange(axis.new), "(half pair) -> (pair half)", half=2
        )  # which of the halves' is at a place
        places = np.argsort(rearrange(np.arange(axis.old), "(half pair) -> (pair half)", half=2))
        sides = {role: Side(side.amplitude[order], side.mode[order]) for role, side in axis.sides.items()}
        return replace(axis, index=places[axis.index[order]], sides=sides)

    return replace(slots, query=neighbours(slots.query), key=neighbours(slots.key))


def normed_rotary_slots(old: int, new: int, score: float) -> HeadSlots:
    """Grow rotary slots under a q- and k-norm (RMS), new = n * old: each pair gets n copies, so the norms see the same
    mean square; the k gain is 0 on all copies but the one that keeps the pair's frequency, the others' q gain is free.
    """
    factor = new // old
    pair = np.arange(new // 2)
    first = pair % factor == 0
    index = np.concatenate([pair // factor, pair // factor + old // 2])
    keeps = np.concatenate([first, first])
    root = np.sqrt(score)
    query = axis_map("normed slots", old, index, 1.0, keeps, gain=np.where(keeps, root, 1.0))
    key = axis_map("normed slots", old, index, 1.0, keeps, gain=np.where(keeps, root, 0.0))
    value = copies(old, cyclic_index(old, new))
    return HeadSlots(query=query, key=key, value=value, name="normed slots by index")
