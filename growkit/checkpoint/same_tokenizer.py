"""Whether two folders have one tokenizer, by what it does: which token has which id, and how it divides a probe. Knows
how transformers opens one, and only where files differ; ignorant of what becomes of the models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from growkit.checkpoint.companions import TOKENIZERS, companion_files
from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.small_files import POINTER, check_fetched, open_plain, read_json
from growkit.checkpoint.token_ids import FAST, token_ids
from growkit.errors import CheckpointError, reason_of
from growkit.limits import AXIS

SETTINGS = "tokenizer_config.json"
PROBE = (
    "The quick brown fox jumps over the lazy dog, 12,345.67 times; isn't that (almost) true?",
    "def f(x):\n    return x**2  # two  spaces\n\tand a tab\n\n\n",
    "Zwölf Boxkämpfer; naïve café; Привет, мир; 東京は晴れ; ½ ﬁ 🙂",
    " leading and trailing ",
)
Ids = Mapping[str, int]


class Unlike(NamedTuple):
    """In what two tokenizers are unlike. tokens: why their ids do not mean the same tokens, or ""; note: what else."""

    tokens: str = ""
    note: str = ""


def stock_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer as transformers opens it, without any code that lies beside it or that it names.

    Raises CheckpointError for one whose class needs such code or whose folder has links out of it, and whatever
    transformers does for what does not load.
    """
    import transformers

    companion_files(folder)  # refuses links that lead out of it
    for stored in (folder / name for name in TOKENIZERS if (folder / name).is_file()):
        with open_plain(stored) as file:
            check_fetched(stored, file.peek(len(POINTER)))
    token, largest = max((token_ids(folder) or {"": 0}).items(), key=lambda entry: entry[1], default=("", 0))
    if largest > AXIS:  # the library walks through all numbers up to it
        raise CheckpointError(f"its token {token!r} has the id {largest}, where {AXIS} is the most allowed")
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    name = settings.get("tokenizer_class")
    if settings.get("auto_map") and isinstance(name, str) and not hasattr(transformers, name.removesuffix("Fast")):
        raise CheckpointError(f"its class {name!r} needs code of its own (auto_map), which growkit never runs")
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def tokenizer_files(folder: Path | None) -> dict[str, str]:
    """SHA-256 by name of a folder's tokenizer files that say which token has which id."""
    if folder is None:
        return {}
    return {name: file_hash(folder / name) for name in TOKENIZERS if (folder / name).is_file()}


def known_ids(folder: Path | None) -> Ids | None:
    """The id of every token: as the files say it, or where growkit does not read them, as transformers does; None where
    nobody can tell.
    """
    stated = token_ids(folder)
    if stated is not None or not tokenizer_files(folder) or folder is None:
        return stated
    try:
        return dict(stock_tokenizer(folder).get_vocab())
    except Exception:  # transformers raises many kinds; each means that it does not load
        return None


def unlike(labels: tuple[str, str], folders: tuple[Path | None, Path | None]) -> Unlike:
    """How the tokenizers of two models differ. labels: of the models, for sentences.

    Nothing where one has none, or where their files are the same. Raises CheckpointError for a file that cannot be
    read.
    """
    files, (one, other) = [tokenizer_files(folder) for folder in folders], folders
    same = files[0] == files[1] or (FAST in files[0] and files[0].get(FAST) == files[1].get(FAST))
    if same or one is None or other is None or not all(files):
        return Unlike()
    pair = f"{labels[0]!r} and {labels[1]!r}"
    ids = known_ids(one), known_ids(other)
    if ids[0] is not None and ids[1] is not None:
        different = first_difference(labels, ids[0], ids[1]) or one_sided(labels, ids[0], ids[1])
        if different:
            return Unlike(tokens=different)
    else:
        named = sorted(name for name in {*files[0]} & {*files[1]} if files[0][name] != files[1][name])
        if named:
            return Unlike(tokens=f"{pair} have different {named[0]}")
    try:
        divided = [_divided(folder) for folder in (one, other)]
    except Exception as error:  # as above
        shared = "" if None in ids else " beyond the tokens, which are the same"
        return Unlike(note=f"the tokenizers of {pair} could not be compared{shared}: {reason_of(error)}")
    if divided[0] != divided[1]:
        text = next(text for text, *both in zip(PROBE, *divided) if both[0] != both[1])
        return Unlike(
            note=f"the tokenizers of {pair} have the same tokens but divide text differently, such as {text!r}"
        )
    return Unlike()


def first_difference(labels: tuple[str, str], ours: Ids, theirs: Ids) -> str:
    """The first id that is one token here and another there, in words."""
    token_at = {place: token for token, place in theirs.items()}
    for token, place in sorted(ours.items(), key=lambda entry: entry[1]):
        other = token_at.get(place, token)
        if other != token and theirs.get(token) != place:
            return f"token id {place} is {token!r} in {labels[0]!r} and {other!r} in {labels[1]!r}"
    return ""


def not_the_beginning(labels: tuple[str, str], folders: tuple[Path | None, Path | None], rows: int) -> str:
    """Why the first `rows` entries of one model's vocabulary are not the first of another's, in words; "" where they
    are, or nobody can tell. Raises CheckpointError for a file that cannot be read."""
    files = [tokenizer_files(folder) for folder in folders]
    if files[0] == files[1]:
        return ""
    ours, theirs = (known_ids(folder) for folder in folders)
    if ours is None or theirs is None:
        return ""
    for token, place in sorted(ours.items(), key=lambda entry: entry[1]):
        if place < rows and theirs.get(token) != place:
            where = "is not there" if token not in theirs else f"has id {theirs[token]}"
            return f"token {token!r} has id {place} in {labels[0]!r} and {where} in {labels[1]!r}"
    return ""


def one_sided(labels: tuple[str, str], ours: Ids, theirs: Ids) -> str:
    """The first token that only one has, in words."""
    for (label, one), (missing, other) in (
        ((labels[0], ours), (labels[1], theirs)),
        ((labels[1], theirs), (labels[0], ours)),
    ):
        extra = sorted((place, token) for token, place in one.items() if token not in other)
        if extra:
            return f"token {extra[0][1]!r} (id {extra[0][0]}) is in {label!r} and not in {missing!r}"
    return ""


def _divided(folder: Path) -> list[list[int]]:
    tokenizer = stock_tokenizer(folder)
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROBE]
