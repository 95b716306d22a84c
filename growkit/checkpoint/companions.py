"""The files beside the weights: tokenizer, generation settings, sentence-embedding modules. Knows file names; ignorant
of tensors' meaning.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import Fields, ListOf, Text
from growkit.checkpoint.small_files import check_inside, open_plain, read_json, read_json_value, reading
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
MODULES, GENERATION = "modules.json", "generation_config.json"
TEMPLATES = "additional_chat_templates"  # a folder: the chat templates that have names
MODULE = Fields({"type": Text(), "path": Text()}, needed=("type", "path"))
# in the order of how much each says; settings such as the longest input may differ
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json", "merges.txt")
POOLING_SIZES = ("word_embedding_dimension", "embedding_dimension")
# sentence-transformers' first words for how tokens are pooled -> its words of today, in the order of what they put out
POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_EMBEDDING = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
MODULE_DEFAULTS: dict[str, dict[str, Any]] = {  # settings that a module's config.json may leave out
    "Pooling": {"include_prompt": True},
    "Normalize": _EMBEDDING,
    "Dense": {**_EMBEDDING, "use_residual": False},
}


def companion_files(folder: Path) -> list[Path]:
    """Files that belong to a model but hold no weights and no sizes, to be copied byte for byte."""
    with reading(folder):
        files = [
            path
            for path in sorted(folder.iterdir())
            if path.is_file()
            and path.name not in OWN
            and ".index." not in path.name  # of weights, under whatever variant
            and (path.suffix in SUFFIXES or path.name.upper().startswith(LICENSES))
        ]
    for path in files:
        check_inside(path)
    return files


def sentence_modules(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of each module after the transformer in a sentence-embedding model; none for other checkpoints.

    A Normalize needs no folder, which version control drops where it is empty. Raises CheckpointError for a
    modules.json that is no list of modules, or names a folder that is not inside.
    """
    if not (folder / MODULES).exists():
        return []
    content = read_json_value(folder / MODULES)
    if ListOf(MODULE).fault(content):
        raise CheckpointError(f"{str(folder / MODULES)!r} is no list of modules with 'type' and 'path'")
    entries = [(entry["type"].rsplit(".", 1)[-1], entry["path"]) for entry in content]
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
        if kind != "Normalize" and not (folder / path).is_dir():
            raise CheckpointError(
                f"{str(folder / MODULES)!r} lists a {kind} module in {path!r}, which is not there; fetch that folder too"
            )
        modules.append((kind, folder / path))
    return modules


def modules_conflict(folders: Sequence[Path | None]) -> str:
    """What two sentence models do differently after the transformer, or ''; sizes of the hidden axis left out."""
    all_settings = []
    for folder in folders:
        modules = sentence_modules(folder) if folder is not None else []
        settings = {}
        for kind, place in modules:
            stated = read_json(place / CONFIG) if (place / CONFIG).exists() else {}
            settings[kind] = _meant(kind, stated)
        all_settings.append(settings)
    for other in all_settings[1:]:
        if list(all_settings[0]) != list(other):
            return f"modules {', '.join(all_settings[0]) or 'none'} and {', '.join(other) or 'none'}"
        different = [kind for kind in other if other[kind] != all_settings[0][kind]]
        if different:
            return f"settings of their {different[0]} module"
    return ""


def _meant(kind: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """A module's settings in the words of today, defaults filled in, sizes of the hidden axis left out."""
    settings = {k: v for k, v in stated.items() if k not in (*POOLING_SIZES, "in_features", *POOLING_MODES)}
    if kind == "Pooling":
        modes = settings.get("pooling_mode") or [m for key, m in POOLING_MODES.items() if stated.get(key)] or "mean"
        settings["pooling_mode"] = [modes] if isinstance(modes, str) else modes
    return {**MODULE_DEFAULTS[kind], **settings}


def copy_companions(source: Path, out: Path, hidden: tuple[int, int]) -> None:
    """Copy companions byte for byte; pooling settings get the new width."""
    for path in companion_files(source):
        copy_plain(path, out / path.name)
    copy_templates(source, out)
    for kind, folder in sentence_modules(source):
        if not folder.is_dir():
            continue
        (out / folder.name).mkdir()
        for path in companion_files(folder):
            copy_plain(path, out / folder.name / path.name)
        if (folder / CONFIG).exists():
            settings = read_json(folder / CONFIG)
            sizes = POOLING_SIZES if kind == "Pooling" else ("in_features",)
            grown = {k: hidden[1] if k in sizes and v == hidden[0] else v for k, v in settings.items()}
            if grown == settings:
                copy_plain(folder / CONFIG, out / folder.name / CONFIG)
            else:
                write_json(out / folder.name / CONFIG, grown)


def copy_templates(source: Path, out: Path) -> None:
    """Copy the folder of chat templates that have names, where there is one."""
    templates = source / TEMPLATES
    if templates.is_dir():
        check_inside(templates)
        (out / TEMPLATES).mkdir()
        for path in companion_files(templates):
            copy_plain(path, out / TEMPLATES / path.name)


def copy_plain(source: Path, target: Path) -> None:
    """Copy one file, which is no pipe and no device."""
    with open_plain(source) as original, open(target, "wb") as copy:
        shutil.copyfileobj(original, copy)
