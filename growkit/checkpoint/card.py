"""The model card of a result: the lines that the hub reads, inherited from the sources' cards, and a few words. Knows
what the hub defines; ignorant of what was made.

A source's card is text of a stranger: of its front matter only values of the expected kinds are taken, and YAML is
written by its library. A card that cannot be read says nothing.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growkit.checkpoint.small_files import read_bytes
from growkit.checkpoint.source import HUB_ID, Checkpoint
from growkit.checkpoint.yaml_text import LARGEST_YAML, parse_yaml
from growkit.errors import CheckpointError
from growkit.visible import visible

CARD = "README.md"
FINE_TUNE, MERGE, ADAPTER = "finetune", "merge", "adapter"  # base_model_relation, as the hub defines it
LIBRARIES = ("transformers", "sentence-transformers")
MOST = 50  # entries of a list
_WORD = re.compile(r"[A-Za-z0-9][\w.+-]{0,62}")  # licences, languages, pipeline tags, tags of a whole word
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}")
PASSING_TAGS = ("generated_from_trainer", "base_model:")  # of what the source was, and what the hub makes of base_model


def model_card(
    title: str,
    text: str,
    sources: Sequence[Checkpoint] = (),
    relation: str = FINE_TUNE,
    tags: Sequence[str] = ("growkit",),
    library: str | None = None,
    bases: Sequence[Checkpoint] | None = None,
) -> str:
    """README.md of a result. relation: of the result to its bases. bases: those of the sources that it is based
    on, None for all. library: None for the sources'.
    """
    import yaml

    cards = [read_card(source.folder) for source in sources]
    based = [_known(one, card) for one, card in zip(sources, cards) if bases is None or any(one is b for b in bases)]
    head = _head(cards, based, relation, tags, library)
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    words = " ".join(title.split())
    shown = "\n".join(visible(line) for line in f"# {words}\n\n{text}".split("\n"))
    return f"---\n{front}---\n\n{shown}\n{_licences(sources, cards) if 'license' not in head else ''}"


def read_card(folder: Path | None) -> dict[str, Any]:
    """The front matter of a folder's card; {} where there is none that can be read."""
    if folder is None or not (folder / CARD).is_file():
        return {}
    try:
        text = read_bytes(folder / CARD, 16 * LARGEST_YAML).decode("utf-8", "replace")
        match = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*$", text, re.S | re.M)
        content = parse_yaml(match[1]) if match else {}
    except (CheckpointError, ValueError):
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _head(
    cards: Sequence[Mapping[str, Any]],
    bases: Sequence[list[str]],
    relation: str,
    tags: Sequence[str],
    library: str | None,
) -> dict[str, Any]:
    """What the hub reads: nothing that the sources do not say."""
    first = cards[0] if cards else {}
    named = list(dict.fromkeys(name for names in bases for name in names))[:MOST]
    languages = list(dict.fromkeys(word for card in cards for word in _listed(card.get("language"), _WORD)))[:MOST]
    inherited = [tag for card in cards for tag in _listed(card.get("tags"), _LINE) if not tag.startswith(PASSING_TAGS)]
    pipeline, stated = first.get("pipeline_tag"), first.get("library_name")
    head: dict[str, Any] = {"library_name": library or (stated if stated in LIBRARIES else LIBRARIES[0])}
    head |= {"base_model": named if len(named) > 1 else named[0], "base_model_relation": relation} if named else {}
    head |= _licence(cards)
    head |= {"language": languages} if languages else {}
    head |= {"pipeline_tag": pipeline} if isinstance(pipeline, str) and _WORD.fullmatch(pipeline) else {}
    return {**head, "tags": list(dict.fromkeys([*inherited[:MOST], *tags]))}


def _licence(cards: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The licence, where all sources have one and the same."""
    keys = ("license", "license_name", "license_link")
    stated = [{key: _text(card[key]) for key in keys if key in card and _text(card[key])} for card in cards]
    alike = bool(stated) and all(one == stated[0] for one in stated) and "license" in stated[0]
    return stated[0] if alike else {}


def _licences(sources: Sequence[Checkpoint], cards: Sequence[Mapping[str, Any]]) -> str:
    """What the sources say of licences, where they do not say the same; "" where none says anything."""
    if not any(_text(card.get("license")) for card in cards):
        return ""
    rows = "".join(
        f"- `{source.name.replace('`', '')}`: {_text(card.get('license')).replace('`', '') or 'not stated'}\n"
        for source, card in zip(sources, cards)
    )
    return f"\nThe sources' licences are not one and the same:\n\n{rows}"


def _text(value: Any) -> str:
    """A licence, its name or its address: one line of text, or ""; of a list the first."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value if isinstance(value, str) and _LINE.fullmatch(value) else ""


def _listed(value: Any, pattern: re.Pattern[str]) -> list[str]:
    """The entries of a list, or a value by itself, that are text of a pattern."""
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, str) and pattern.fullmatch(entry)][:MOST]


def _known(source: Checkpoint, card: Mapping[str, Any]) -> list[str]:
    """What a source is called on the hub; of a folder here, what its own card says that it came from."""
    if HUB_ID.fullmatch(source.label) and not Path(source.label).exists():
        return [source.label]
    return _listed(card.get("base_model"), HUB_ID)
