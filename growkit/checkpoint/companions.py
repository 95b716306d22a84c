"""The files beside the weights: tokenizer, generation settings, sentence-embedding modules. Knows file names; ignorant
of tensors' meaning.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.small_files import read_json, read_json_value, reading
from growkit.checkpoint.source import ADAPTER_CONFIG, CONFIG, INDEX, PROVENANCE
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError

SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".spm", ".vocab")
LICENSES = ("LICENSE", "NOTICE", "USE_POLICY")
OWN = (
    CONFIG,
    INDEX,
    PROVENANCE,
    "README.md",
    ADAPTER_CONFIG,
    "lr_multipliers.json",
    "trainer_state.json",
)  # written anew or not of this model
MODULES = "modules.json"
# in the order of how much each says; settings such as the longest input may differ
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json", "merges.txt")
POOLING_SIZES = ("word_embedding_dimension", "embedding_dimension")


def companion_files(folder: Path) -> list[Path]:
    """Files that belong to a model but hold no weights and no sizes, to be copied byte for byte."""
    with reading(folder):
        return [
            path
            for path in sorted(folder.iterdir())
            if path.is_file()
            and path.name not in OWN
            and not path.name.endswith(".index.json")
            and (path.suffix in SUFFIXES or path.name.upper().startswith(LICENSES))
        ]


def sentence_modules(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of each module after the transformer in a sentence-embedding model; none for other checkpoints.

    Raises CheckpointError for a modules.json that is no list of modules or names a folder that is not inside.
    """
    if not (folder / MODULES).exists():
        return []
    try:
        entries = [(str(m["type"]).rsplit(".", 1)[-1], str(m["path"])) for m in read_json_value(folder / MODULES)]
    except (TypeError, KeyError):
        raise CheckpointError(f"{str(folder / MODULES)!r} is no list of modules with 'type' and 'path'") from None
    modules: list[tuple[str, Path]] = []
    for kind, path in entries:
        if kind == "Transformer" and path == "":
            continue
        known = kind in ("Pooling", "Normalize", "Dense") and kind not in [k for k, _ in modules]
        if not known or Path(path).name != path or path in ("", ".."):
            raise CheckpointError(
                f"{str(folder / MODULES)!r} has a {kind} module in {path!r}; growkit carries one Pooling, one Normalize"
                " and one Dense in folders of their own, after the transformer"
            )
        if (folder / path).is_dir():
            modules.append((kind, folder / path))
    return modules


def tokenizer_conflict(folders: Sequence[Path]) -> str:
    """The name of a tokenizer file that two folders both have with other contents, or ''."""
    for name in TOKENIZERS:
        there = [folder / name for folder in folders if (folder / name).is_file()]
        if len({file_hash(path) for path in there}) > 1:
            return name
    return ""


def modules_conflict(folders: Sequence[Path | None]) -> str:
    """What two sentence models do differently after the transformer, or ''; sizes of the hidden axis left out."""
    all_settings = []
    for folder in folders:
        modules = sentence_modules(folder) if folder is not None else []
        settings = {}
        for kind, place in modules:
            stated = read_json(place / CONFIG) if (place / CONFIG).exists() else {}
            settings[kind] = {k: v for k, v in stated.items() if k not in (*POOLING_SIZES, "in_features")}
        all_settings.append(settings)
    for other in all_settings[1:]:
        if list(all_settings[0]) != list(other):
            return f"modules {', '.join(all_settings[0]) or 'none'} and {', '.join(other) or 'none'}"
        different = [kind for kind in other if other[kind] != all_settings[0][kind]]
        if different:
            return f"settings of their {different[0]} module"
    return ""


def copy_companions(source: Path, out: Path, hidden: tuple[int, int]) -> None:
    """Copy companions byte for byte; pooling settings get the new width."""
    for path in companion_files(source):
        _copy(path, out / path.name)
    for kind, folder in sentence_modules(source):
        (out / folder.name).mkdir()
        for path in companion_files(folder):
            _copy(path, out / folder.name / path.name)
        if (folder / CONFIG).exists():
            settings = read_json(folder / CONFIG)
            sizes = POOLING_SIZES if kind == "Pooling" else ("in_features",)
            grown = {k: hidden[1] if k in sizes and v == hidden[0] else v for k, v in settings.items()}
            if grown == settings:
                _copy(folder / CONFIG, out / folder.name / CONFIG)
            else:
                write_json(out / folder.name / CONFIG, grown)


def _copy(source: Path, target: Path) -> None:
    with reading(source):
        original = open(source, "rb")  # noqa: SIM115 - what fails here is the source, what fails below the output
    with original, open(target, "wb") as copy:
        shutil.copyfileobj(original, copy)
