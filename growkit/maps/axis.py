"""What happens to an axis: for each new index, where it comes from and with what amplitude. Knows arithmetic on index
arrays; ignorant of tensors, families and files.

An AxisMap is one rule seen from four roles. For new index j with source s(j):

    write   the tensor produces this axis:  W'[j] = write[j] * W[s(j)]
    read    the tensor sums over it:        W'[j] = read[j]  * W[s(j)]
    gain    a norm's gain over it           g'[j] = gain[j]  * g[s(j)]
    shift   a norm's bias over it           b'[j] = shift[j] * b[s(j)]

The function is kept across an axis when, for every source i, the sum of write*read over the copies of i is 1
(completeness; Net2Net arXiv 1511.05641, LiGO arXiv 2303.00980 appendix A). Each role also has a Mode per index, which
is GATHER for the rules above.

The residual stream never needs an edited norm epsilon here: copies are scaled so that the statistic a norm takes over
the axis is unchanged (sum over all j of write[j]**2 * x[s(j)]**2, divided by the new size, equals the old mean square).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

import numpy as np
from einops import rearrange

from growkit.maps.notation import GAIN, READ, SHIFT, WRITE

Values = float | np.ndarray


class Mode(IntEnum):
    """What an index holds in one role. The order is how little of it the index's own source decides.

    On a composite axis each factor says something of an index, and the later of the two modes holds (`outer`). GATHER
    leaves the word to the other factor. Where nothing depends on one (FREE) nothing depends on the entry, as on a free
    slot in whichever head; BALANCED is free but for a sum, and to keep a sum harms nothing that is free. What is ABSENT
    in one factor is another source's, whatever the other factor says. MEAN, over a whole axis, never meets another
    mode: hidden, which alone has it, is no factor of a composite axis.
    """

    GATHER = 0  # the source's entry, times the amplitude
    MEAN = 1  # the mean over the whole old axis instead of one entry, times the amplitude
    FREE = 2  # nothing depends on it: copies of random sign rather than zeros, which would leave a dead saddle
    BALANCED = 3  # only the sum over all such entries counts, and is 0: copies of random sign less their mean
    ABSENT = 4  # this source has no part in it: another one fills it


# as arrays hold them: a member of the enum itself would make int64 of every array it meets
GATHER, MEAN, FREE, BALANCED, ABSENT = (np.int8(mode) for mode in Mode)


@dataclass(frozen=True)
class Side:
    """One role of a map: amplitude (float64) and mode (int8), both of the new size."""

    amplitude: np.ndarray
    mode: np.ndarray


@dataclass(frozen=True)
class AxisMap:
    """A rule for one axis. index has the new size; `name` is the word a plan shows for it."""

    name: str
    old: int
    index: np.ndarray
    sides: dict[str, Side]

    @property
    def new(self) -> int:
        return len(self.index)

    @property
    def is_identity(self) -> bool:
        return np.array_equal(self.index, np.arange(self.old)) and all(
            (side.amplitude == 1).all() and (side.mode == GATHER).all() for side in self.sides.values()
        )

    def completeness(self) -> np.ndarray:
        """For each old index the sum of write*read over its copies; all ones where the map keeps the function."""
        write, read = self.sides[WRITE], self.sides[READ]
        carried = (write.mode == GATHER) & (read.mode == GATHER)
        return np.bincount(self.index[carried], (write.amplitude * read.amplitude)[carried], self.old)

    def matrix(self, role: str) -> np.ndarray:
        """(new, old) what a role multiplies by, float64: W' = M W. Rows that no rule gives an entry of the source are
        0."""
        side, matrix = self.sides[role], np.zeros((self.new, self.old))
        gathered, mean = side.mode == GATHER, side.mode == MEAN
        matrix[np.flatnonzero(gathered), self.index[gathered]] = side.amplitude[gathered]
        matrix[mean] = side.amplitude[mean, None] / self.old
        return matrix

    def digest(self) -> str:
        """A stable hash of everything the map says, for provenance."""
        state = sha256(f"{self.old} {self.new}".encode())
        for array in (self.index, *(a for role in sorted(self.sides) for a in vars(self.sides[role]).values())):
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()


def axis_map(
    name: str,
    old: int,
    index: np.ndarray,
    write: Values,
    read: Values,
    gain: Values = 1.0,
    shift: Values = 1.0,
    modes: dict[str, np.ndarray] | None = None,
) -> AxisMap:
    """Build an AxisMap from arrays or scalars; `modes` maps a role to its mode array (GATHER where absent)."""
    index = np.asarray(index, dtype=np.int64)
    modes = modes or {}
    sides = {}
    for role, amplitude in ((WRITE, write), (READ, read), (GAIN, gain), (SHIFT, shift)):
        values = np.broadcast_to(np.asarray(amplitude, dtype=np.float64), index.shape).copy()
        mode = np.asarray(modes.get(role, np.zeros(len(index))), dtype=np.int8)
        sides[role] = Side(values, mode)
    return AxisMap(name, old, index, sides)


def identity(size: int) -> AxisMap:
    """The map that changes nothing."""
    return axis_map("kept", size, np.arange(size), 1.0, 1.0)


def cyclic_index(old: int, new: int) -> np.ndarray:
    """0..old-1 again and again: new index j comes from j mod old."""
    return np.arange(new) % old


def random_index(old: int, new: int, generator: np.random.Generator) -> np.ndarray:
    """bert2BERT's mapping function (arXiv 2110.07143): the old indices, then uniform draws with replacement."""
    return np.concatenate([np.arange(old), generator.integers(0, old, new - old)])


def counts(index: np.ndarray, old: int) -> np.ndarray:
    """For each new index, how many new indices share its source (the original counts as one)."""
    return np.bincount(index, minlength=old)[index]


def copy_rank(index: np.ndarray) -> np.ndarray:
    """For each new index, its place among the copies of its source: 0 for the first, 1 for the second, and so on."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(index), dtype=np.int64)
    ranks[order] = np.arange(len(index)) - np.repeat(starts, np.diff(np.r_[starts, len(index)]))
    return ranks


def copies(old: int, index: np.ndarray) -> AxisMap:
    """Plain copies (bert2BERT's FPI, arXiv 2110.07143): write as they are, read divided by the number of copies.

    Exact on every axis that no norm runs over, and on those too when each source has equally many copies.
    """
    return axis_map("copies", old, index, 1.0, 1.0 / counts(index, old))


def even_norm_copies(old: int, index: np.ndarray) -> AxisMap:
    """Isometric copies that keep the root mean square of the axis: exact under RMSNorm at any size.

    write[j] = sqrt(new / (old * c)) for a source with c copies, read[j] = write[j] * old / new. At a whole multiple
    this is plain FPI; elsewhere it is the isometry of growth theory with its scale chosen so that no epsilon changes.
    """
    new = len(index)
    write = np.sqrt(new / (old * counts(index, old)))
    name = "copies" if np.all(write == 1.0) else "isometric copies"
    return axis_map(name, old, index, write, write * old / new)


def norm_undone_copies(old: int, index: np.ndarray) -> AxisMap:
    """Copies under a norm whose own gain undoes their amplitude, for norms over all heads at once (OLMo 2's q, k)."""
    isometric = even_norm_copies(old, index)
    write = isometric.sides[WRITE].amplitude
    return axis_map(isometric.name, old, index, write, write * old / len(index), gain=1.0 / write)


def mean_filler(old: int, new: int, post_norm: bool, begins_normed: bool = False) -> AxisMap:
    """Whole copies, and for the rest of the axis the mean of all old entries (LEMON, arXiv 2310.07999): for LayerNorm.

    A filler that always equals the stream's mean leaves LayerNorm's mean as it is; scaling the copies by sqrt(new /
    (old * k)) leaves its variance as it is, so epsilon need not change. Pre-norm, the normalised filler is exactly 0:
    its bias must be 0 and what reads it is free. Post-norm, the norm's own output is the stream: the filler gets gain 0
    and the mean of the biases, so all of it holds one value, and what reads it must sum to 0; the token-wise part of
    that mean is lost, which is why the result is near and not exact.

    begins_normed: pre-norm, but the stream begins behind a norm, which grows as post-norm ones do. What is lost there
    the filler lacks from there on, and norms in layers, which see it, give it gain 0 too.
    """
    whole = new // old
    index = cyclic_index(old, new)
    filler = np.arange(new) >= whole * old
    amplitude = np.sqrt(new / (old * whole))
    mean = np.where(filler, MEAN, GATHER)
    return axis_map(
        "copies + mean filler",
        old,
        index,
        write=amplitude,
        read=1.0 / (whole * amplitude),
        gain=np.where(filler & (post_norm or begins_normed), 0.0, 1.0),
        shift=np.where(filler & (not post_norm), 0.0, amplitude),
        modes={
            WRITE: mean,
            READ: np.where(filler, BALANCED if post_norm or begins_normed else FREE, GATHER),
            SHIFT: mean * post_norm,
        },
    )


def head_filler(old: int, new: int) -> AxisMap:
    """For a masked-LM head's own layer beside a mean-filled stream: whole copies are read, the rest only pads.

    The padding copies real units, so that the head's LayerNorm sees almost the old statistics; its gain, bias and
    readers are 0. Near, not exact.
    """
    whole = new // old
    filler = np.arange(new) >= whole * old
    kept = np.where(filler, 0.0, 1.0)
    return axis_map("copies + silent copies", old, cyclic_index(old, new), 1.0, kept / whole, gain=kept, shift=kept)


def block_of(sizes: Sequence[int], member: int) -> AxisMap:
    """One member's block of an axis on which several lie side by side; the rest of the axis is ABSENT."""
    first, new = sum(sizes[:member]), sum(sizes)
    inside = (np.arange(new) >= first) & (np.arange(new) < first + sizes[member])
    index = (np.arange(new) - first) % sizes[member]
    mode = np.where(inside, GATHER, ABSENT)
    return axis_map(
        "side by side", sizes[member], index, 1.0, 1.0, modes=dict.fromkeys((WRITE, READ, GAIN, SHIFT), mode)
    )


def outer(left: AxisMap, right: AxisMap) -> AxisMap:
    """The map of the composite axis (left right): row-major product of indices, amplitudes multiplied, of two modes the
    later one (see Mode)."""

    def joined(grid: np.ndarray) -> np.ndarray:
        return rearrange(grid, "left right -> (left right)")

    sides = {}
    for role, a in left.sides.items():
        b = right.sides[role]
        amplitude = joined(a.amplitude[:, None] * b.amplitude)
        sides[role] = Side(amplitude, joined(np.maximum(a.mode[:, None], b.mode)))
    index = joined(left.index[:, None] * right.old + right.index)
    return AxisMap(f"{left.name} x {right.name}", left.old * right.old, index, sides)


def concatenate(parts: Sequence[AxisMap], old: int = 1, new: int = 1) -> AxisMap:
    """The map of an axis that is several blocks one after another, such as the q, k, v of a fused projection.

    old, new: in how many equal parts the blocks are dealt out, a part of each block in turn: a key-value head and the
    queries that read it. Every block's sizes are multiples of them.
    """
    widths = [part.old // old for part in parts]  # of each block in one part
    firsts = np.cumsum([0, *widths])

    def dealt(blocks: Iterable[np.ndarray]) -> np.ndarray:
        split = [rearrange(block, "(part entry) -> part entry", part=new) for block in blocks]
        return rearrange(np.concatenate(split, axis=1), "part entry -> (part entry)")

    index = dealt(
        part.index // width * firsts[-1] + first + part.index % width
        for part, width, first in zip(parts, widths, firsts)
    )
    sides = {
        role: Side(*(dealt(getattr(p.sides[role], f) for p in parts) for f in ("amplitude", "mode")))
        for role in parts[0].sides
    }
    return AxisMap(" | ".join(part.name for part in parts), old * int(firsts[-1]), index, sides)
