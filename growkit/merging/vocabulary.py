"""Which row of a member belongs to which row of the base, where vocabularies differ. Knows sizes and token ids;
ignorant of tensors' values and of tokenizer files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from growkit.checkpoint.same_tokenizer import first_difference, one_sided
from growkit.errors import RequestError

NONE = -1  # in a map of rows: the member has no such row
CHOICES = (
    "growkit merge joins them with --vocab base, which keeps the base's vocabulary and matches rows by token id, or with"
    " --vocab tokens, which matches by token"
)


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a checkpoint's tokens. size: rows of its embedding. ids: of its tokens, None where no file says.

    files: hashes by name of its tokenizer files.
    """

    label: str
    size: int
    ids: Mapping[str, int] | None = None
    files: Mapping[str, str] | None = None


def rows_of(base: Vocabulary, member: Vocabulary, how: str) -> np.ndarray | None:
    """(base rows,) the member's row for each of the base's, NONE where it has none; None where all are the same.

    how: "same" refuses what differs; "base" matches by id and refuses an id that is another token; "tokens" matches by
    token. Raises RequestError naming the first difference and the ways out.
    """
    if how == "same":
        _check_same(base, member)
        return None
    if how == "tokens":
        if base.ids is None or member.ids is None:
            lacking = base if base.ids is None else member
            raise RequestError(
                f"--vocab tokens: {lacking.label!r} has no tokenizer.json, vocab.json or vocab.txt that says its"
                " tokens; --vocab base matches by id"
            )
        rows = np.full(base.size, NONE)
        for token, place in base.ids.items():
            if place < base.size and member.ids.get(token, member.size) < member.size:
                rows[place] = member.ids[token]
    else:
        rows = np.arange(base.size)
        rows[member.size :] = NONE
        if base.ids is not None and member.ids is not None:
            different = first_difference((base.label, member.label), base.ids, member.ids)
            if different:
                raise RequestError(f"--vocab base: {different}; --vocab tokens matches by token")
            # a row without a token in either is padding, or a token that only one knows
            used = {*base.ids.values()} & {*member.ids.values()}
            rows[[place for place in range(base.size) if place not in used]] = NONE
    same = base.size == member.size and np.array_equal(rows, np.arange(base.size))
    return None if same else rows


def _check_same(base: Vocabulary, member: Vocabulary) -> None:
    pair = f"{base.label!r} and {member.label!r}"
    if base.size != member.size:
        raise RequestError(f"{pair} have vocabularies of {base.size} and {member.size}; {CHOICES}")
    if base.ids is not None and member.ids is not None:
        names = base.label, member.label
        different = first_difference(names, base.ids, member.ids) or one_sided(names, base.ids, member.ids)
        if different:
            raise RequestError(f"{different}; {CHOICES}")
        return
    for name in sorted({*(base.files or {})} & {*(member.files or {})}):
        if base.files is not None and member.files is not None and base.files[name] != member.files[name]:
            raise RequestError(f"{pair} have different {name}; {CHOICES}")
