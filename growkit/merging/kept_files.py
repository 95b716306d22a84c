"""Files of members that a merge keeps because the first model lacks them: a chat template, generation settings. Knows
where Hugging Face puts these; ignorant of weights.

The first model (the base, else the first member) has the say; what it lacks comes from the first member that has it, by
the order of the plan, in which members stand by name.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from growkit.checkpoint.companions import GENERATION
from growkit.checkpoint.same_tokenizer import SETTINGS
from growkit.checkpoint.small_files import check_inside, open_plain, read_json
from growkit.checkpoint.source import Checkpoint
from growkit.errors import CheckpointError

TEMPLATE, OLD_TEMPLATE = "chat_template.jinja", "chat_template.json"


def givers_of(first: Checkpoint, members: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Which member gives the chat template and the generation settings, by file; none where the first has its own."""
    given: dict[str, Checkpoint] = {}
    for name in (TEMPLATE, GENERATION):
        if first.folder is not None and not _has(first.folder, name):
            giver = next((m for m in members if m.folder is not None and _has(m.folder, name)), None)
            given |= {name: giver} if giver is not None else {}
    return given


def kept_notes(given: dict[str, Checkpoint], first: str) -> list[str]:
    """What a plan says of them."""
    words = {TEMPLATE: "the chat template", GENERATION: "the generation settings"}
    return [f"{words[name]} of {giver.label!r} is kept, as {first!r} has none" for name, giver in given.items()]


def keep(given: dict[str, Checkpoint], folder: Path) -> None:
    """Write them into the result."""
    for name, giver in given.items():
        assert giver.folder is not None, "only folders give files"
        if name == TEMPLATE and not (giver.folder / TEMPLATE).is_file():
            (folder / TEMPLATE).write_text(_template(giver.folder), "utf-8")
        else:
            with open_plain(giver.folder / name) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)


def _has(folder: Path, name: str) -> bool:
    check_inside(folder / name)
    return (folder / name).is_file() or (name == TEMPLATE and bool(_template(folder)))


def _template(folder: Path) -> str:
    """The chat template in an older place: a file of JSON, or the tokenizer's settings; "" where there is none."""
    for name in (OLD_TEMPLATE, SETTINGS):
        check_inside(folder / name)
        try:
            value = read_json(folder / name).get("chat_template") if (folder / name).is_file() else None
        except CheckpointError:
            continue  # what a tokenizer's settings must be is for those who load it
        if isinstance(value, list):  # of several, named ones
            value = next((v.get("template") for v in value if isinstance(v, dict) and v.get("name") == "default"), None)
        if isinstance(value, str) and value:
            return value
    return ""
