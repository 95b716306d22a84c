"""Whether a small module is sound and belongs to its base: its files, its numbers, and what it makes of the base's
outputs. Knows the folders of PEFT and of growkit; ignorant of how outputs are judged.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from growkit.checkpoint.source import ADAPTER, Checkpoint, open_state
from growkit.checkpoint.stream import is_finite
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.growth.sources import headers_of, open_source
from growkit.maps.exactness import Exactness
from growkit.merging.stored_deltas import open_skill
from growkit.models.adapters import FolderAdapter
from growkit.models.small.small_file import SMALL_WEIGHTS, is_small
from growkit.models.verify import Verification, verify

AT_ONCE = 1 << 24  # entries that are looked at


def verify_module(
    adapter: str | Path,
    source: str | Path | Sequence[str | Path],
    target: str | Path,
    text: str | Path | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    family: str | None = None,
    source_heads: int | None = None,
) -> Verification:
    """Check a small module's folder against its base, then compare: source, the base, with it against target, which
    `apply` made of both; where source is empty, target, the base, against target with it, which tells how much it does
    and is judged by a tolerance alone.

    Raises RequestError for one that growkit made for other weights or that cannot be put on the base, CheckpointError
    for files that do not hold what they should, and for NaN and infinity.
    """
    named = [source] if isinstance(source, str | Path) else list(source)
    if len(named) > 1:
        raise RequestError("a small module is for one model: with --adapter name its base, and what apply made of both")
    on, base = FolderAdapter(adapter), named[0] if named else target
    with closing(open_source(base, family, source_heads)) as opened:
        on.check(opened)
        tensors = check_sound(Path(adapter), opened)
    usual = (text, tolerance, seed, family, source_heads)
    if not named:
        found = verify(base, base, *usual, after_has=on, exactness=Exactness.APPROXIMATE)
        found = replace(found, target=f"{base} with {adapter}")
    else:
        found = verify(base, target, *usual, before_has=on, exactness=Exactness.EXACT)
        found = replace(found, source=f"{found.source} with {adapter}")
    sound = f"{str(adapter)!r} fits {str(base)!r}: {tensors} tensors, all numbers finite"
    return replace(found, notes=(*found.notes, sound))


def check_sound(folder: Path, base: Checkpoint) -> int:
    """How many tensors a small module has. Raises as verify_module does; what a soft mixture's tensors are called and
    their shapes are seen when it is put on."""
    small = is_small(folder)
    if not small:
        assert base.config is not None, "open_source gives every checkpoint a config"
        open_skill(folder, base, headers_of(base), family_named(base.config.get("model_type"))).stored.close()
    path = folder / (SMALL_WEIGHTS if small else ADAPTER)
    with closing(open_state(path)) as stored:
        for name, tensor in stored.tensors.items():
            height = tensor.shape[0] if tensor.shape else 1
            rows = max(1, AT_ONCE * height // max(1, tensor.elements))
            for first in range(0, height, rows):
                if not is_finite(stored.rows(name, np.arange(first, min(first + rows, height)))):
                    raise CheckpointError(f"{str(path)!r} has NaN or infinity in {name!r}; fetch or train it again")
        return len(stored.tensors)
