"""Which files of a folder are its weights: those that stock transformers would read, in its order. Knows names of files
and indexes; ignorant of configs and of what any tensor means.
"""

import os
import shlex
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import Fields, MapOf, Text, checked
from growkit.checkpoint.headers import StoredTensor, read_header
from growkit.checkpoint.small_files import read_json
from growkit.errors import CheckpointError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
EXPLICIT = "transformers_weights"  # config key that names another file, or another index
STOCK_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # what transformers reads for lack of the others
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX_FIELDS = Fields({"weight_map": MapOf(Text(called="the name of a file"))}, needed=("weight_map",))
CONVERT = (
    'python -c "import sys, transformers as t; kind = t.AutoConfig.from_pretrained(sys.argv[1]).architectures[0];'
    " getattr(t, kind).from_pretrained(sys.argv[1], dtype='auto').save_pretrained(sys.argv[2])\""
)


def tensors_of(folder: Path, explicit: Any = None) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """(the tensors of a folder, notes on what else is there), from the files that transformers' from_pretrained takes.

    explicit: what its config has under EXPLICIT. One safetensors file of another name (a variant such as
    model.fp16.safetensors) is taken where transformers would find nothing. Raises CheckpointError where nothing is
    there to be read, or more than one thing.
    """
    single, index = folder / SINGLE, folder / INDEX
    if explicit is not None:
        return _explicit(folder, explicit), ()
    if single.exists():
        return read_header(single), _beside(index)
    if index.exists():
        return _indexed(index), ()
    files = sorted(folder.glob("*.safetensors"))
    stock = next((folder / name for name in STOCK_PICKLES if (folder / name).exists()), None)
    if files and stock is not None:
        raise CheckpointError(
            f"{str(folder)!r} has {files[0].name!r}, but transformers would read {stock.name!r}, a pickle, for want of a"
            f" {SINGLE}; name the file you mean, {str(files[0])!r}, or rename it"
        )
    if len(files) == 1:
        return read_header(files[0]), ()
    if files:
        raise CheckpointError(
            f"{str(folder)!r} has {len(files)} safetensors files but neither {SINGLE} nor {INDEX}; name the one you mean"
        )
    pickles = [path for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
    if pickles:
        raise pickled(pickles[0])
    raise CheckpointError(f"{str(folder)!r} holds no checkpoint: expected {SINGLE} or {INDEX}{_further_in(folder)}")


def _further_in(folder: Path) -> str:
    """What to say where a folder in this one holds the weights: a run's result, or the transformer of a sentence model
    as sentence-transformers saved it before it laid that beside modules.json.
    """
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and (path / "config.json").is_file()):
        if any(path.suffix in (".safetensors", *PICKLES) for path in inner.iterdir()):
            keep = "; to keep the modules beside it, save the model anew with sentence-transformers first"
            return f"; {str(inner)!r} holds one: give that folder{keep * (folder / 'modules.json').exists()}"
    return ""


def _explicit(folder: Path, name: Any) -> dict[str, StoredTensor]:
    """The tensors of the file, or of the index, that a config names."""
    ends = (".safetensors", ".safetensors.index.json")
    if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith(ends):
        raise CheckpointError(
            f"config.json of {str(folder)!r} should name a safetensors file or index in its folder under {EXPLICIT!r},"
            f" not {name!r}"
        )
    if not (folder / name).exists():
        raise CheckpointError(f"config.json of {str(folder)!r} names {name!r} as its weights, which is not there")
    return read_header(folder / name) if name.endswith(ends[0]) else _indexed(folder / name)


def _beside(index: Path) -> tuple[str, ...]:
    """What to say of an index beside the single file that is read; nothing of one that speaks of that file."""
    if not index.exists():
        return ()
    files = read_json(index).get("weight_map")
    if isinstance(files, dict) and {*map(str, files.values())} == {SINGLE}:
        return ()
    return (
        f"{str(index.parent)!r} has {SINGLE} and {INDEX}: the single file is read and the shards are not, as"
        " transformers does; remove what is stale",
    )


def _indexed(index: Path) -> dict[str, StoredTensor]:
    folder = index.parent
    weight_map = checked(read_json(index), INDEX_FIELDS, index, "fetch it again")["weight_map"]
    headers: dict[str, dict[str, StoredTensor]] = {}
    for file in sorted(set(weight_map.values())):
        if os.path.basename(file) != file or file in ("", ".", ".."):
            raise CheckpointError(f"{str(index)!r} points outside its folder, to {file!r}; refusing to follow")
        if not (folder / file).is_file():
            raise CheckpointError(f"{str(index)!r} names {file!r}, which is not there; fetch the missing shard")
        headers[file] = read_header(folder / file)
    tensors: dict[str, StoredTensor] = {}
    for file, header in headers.items():
        for name, tensor in header.items():
            if name in tensors:
                raise CheckpointError(f"tensor {name!r} stands in {tensors[name].path.name!r} and again in {file!r}")
            if weight_map.get(name) != file:
                raise CheckpointError(f"tensor {name!r} is in {file!r} but the index says {weight_map.get(name)!r}")
            tensors[name] = tensor
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise CheckpointError(f"the index says {absent[0]!r} is in {weight_map[absent[0]]!r}, but it is not")
    return tensors


def pickled(path: Path) -> CheckpointError:
    """What to say of weights in a pickle."""
    return CheckpointError(
        f"{str(path)!r} is a pickle, which can run code when it is read; convert it once where you trust it: {CONVERT}"
        f" {shlex.quote(str(path.parent))} NEW_FOLDER"
    )
