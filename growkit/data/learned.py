"""Which tokens of a chat dataset are learned, and where its conversations begin: two flat files beside the tokens.
Knows bytes and places; ignorant of templates and of batches.
"""

from pathlib import Path

import numpy as np

from growkit.data.domains import CURE, INT64, UINT8, header_of
from growkit.data.stored_ids import AT_ONCE, StoredIds
from growkit.errors import CheckpointError


def learned_files(folder: Path, split: str) -> tuple[Path, Path]:
    """(where each conversation starts, which tokens are learned) of a split of conversations."""
    return folder / f"{split}.idx.npy", folder / f"{split}.learned"


class Learned:
    """The conversations of one split. starts: (conversations + 1,) int64, where each begins, and the end of the last.
    marks: (tokens,) uint8, 1 where a token is learned, else 0, read from the file each time.

    Raises CheckpointError where the two files do not say them.
    """

    def __init__(self, folder: Path, split: str, documents: int, tokens: int):
        index, path = learned_files(folder, split)
        self.marks, starts = StoredIds(path, UINT8), StoredIds(index, INT64, header_of(index))
        for file, has, should in ((path, len(self.marks), tokens), (index, len(starts), documents + 1)):
            if has != should:
                raise CheckpointError(f"{str(file)!r} has {has:,} entries where {should:,} should be; {CURE}")
        self.starts = starts[:]
        inside = self.starts.min() >= 0 and self.starts.max() <= tokens
        if not inside or self.starts[0] or self.starts[-1] != tokens or (np.diff(self.starts) < 1).any():
            raise CheckpointError(
                f"{str(index)!r} should say where each conversation starts, from 0 to {tokens:,}; {CURE}"
            )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def counts(self, firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From each first to before each last place (n,): how many tokens are learned, and how many answers begin,
        which are stretches of such tokens; (n,) int64 both. Reads the file once."""
        places = np.unique(np.concatenate([firsts, lasts]))
        before, totals, last = np.empty((2, len(places)), np.int64), np.zeros((2, 1), np.int64), 0
        for begin in range(0, len(self.marks), AT_ONCE):
            marks = self.marks[begin : begin + AT_ONCE]
            if marks.max() > 1:
                raise CheckpointError(f"{str(self.marks.path)!r} should hold 0 and 1 alone, not {marks.max()}; {CURE}")
            anew = np.diff(marks.astype(np.int8), prepend=np.int8(last)) == 1
            ours = slice(*np.searchsorted(self.starts, (begin, begin + len(marks))))
            anew[self.starts[ours] - begin] = marks[self.starts[ours] - begin]
            sums = np.concatenate([totals, totals + np.cumsum([marks, anew], axis=1, dtype=np.int64)], axis=1)
            here = slice(np.searchsorted(places, begin), np.searchsorted(places, begin + len(marks), side="right"))
            before[:, here] = sums[:, places[here] - begin]
            totals, last = sums[:, -1:], int(marks[-1])
        tokens, answers = before[:, np.searchsorted(places, lasts)] - before[:, np.searchsorted(places, firsts)]
        return tokens, answers
