"""Which token has which id, read off a tokenizer's files. Knows their formats; ignorant of how text is divided."""

from pathlib import Path
from typing import Any

from growkit.checkpoint.small_files import read_bytes, read_json

FAST, WORDS, PIECES, ADDED = "tokenizer.json", "vocab.txt", "vocab.json", "added_tokens.json"


def token_ids(folder: Path | None) -> dict[str, int] | None:
    """The id of every token, added ones too; None where no file says so that growkit reads (tokenizer.model alone).

    Raises CheckpointError for a file that cannot be read.
    """
    if folder is None:
        return None
    if (folder / FAST).is_file():
        return _fast(read_json(folder / FAST))
    if (folder / PIECES).is_file():
        added = read_json(folder / ADDED) if (folder / ADDED).is_file() else {}
        return _whole({**read_json(folder / PIECES), **added})
    if (folder / WORDS).is_file():
        lines = read_bytes(folder / WORDS).decode("utf-8", errors="replace").split("\n")
        return {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
    return None


def token_at(folder: Path | None, number: int) -> str | None:
    """The token of an id in a folder's tokenizer; None where no file says it."""
    return next((token for token, place in (token_ids(folder) or {}).items() if place == number), None)


def beyond_rows(what: str, number: int, token: str | None, label: str, rows: int) -> str:
    """The sentence on a token that a model has no embedding for. what: the beginning of it, which ends in a verb.

    A tokenizer may have more tokens than a model has rows, as CodeLlama's has: only one that occurs is refused.
    """
    named = "" if token is None else f" ({token!r})"
    return (
        f"{what} token {number}{named}, and the embedding of {label!r} has {rows} rows, for ids below {rows}; leave such"
        " text out, or take a tokenizer that goes with the model"
    )


def _fast(content: dict[str, Any]) -> dict[str, int] | None:
    model = content.get("model")
    entries = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(entries, list):  # Unigram: [token, score], the id is the place
        entries = {str(entry[0]): number for number, entry in enumerate(entries) if isinstance(entry, list) and entry}
    added = content.get("added_tokens") or []
    if not isinstance(entries, dict) or not isinstance(added, list):
        return None
    return _whole(
        {**entries, **{str(a["content"]): a["id"] for a in added if isinstance(a, dict) and {"content", "id"} <= {*a}}}
    )


def _whole(entries: dict[str, Any]) -> dict[str, int] | None:
    sound = all(type(number) is int and number >= 0 for number in entries.values())
    return entries if sound else None
