"""The safetensors header, read strictly. Knows the file format; ignorant of what any tensor means.

A file is 8 bytes of header length (little endian), a JSON header, and the tensors' bytes one after another. Nothing is
believed: growkit reads rows by offset, so an offset that lies would be garbage in the result.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

from growkit.checkpoint.small_files import POINTER, check_fetched, open_plain, parse_json, reading
from growkit.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """Where a tensor lies: its file and absolute byte offset, with its dtype and shape.

    aliases: other names that the file says it has, as safetensors.torch.save_model writes what is tied.
    """

    name: str
    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    aliases: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises CheckpointError for a file that is missing, unreadable, truncated, or whose header is no valid safetensors
    header: duplicate names, unknown dtypes, sizes that do not match, overlaps, holes, misaligned or trailing bytes.
    """
    with open_plain(path) as file, reading(path):
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise _damaged(path, f"it has {size} bytes, too few for a header")
        check_fetched(path, file.peek(len(POINTER)))
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, f"its header should have {length} bytes, where {MAX_HEADER_BYTES} is the most allowed")
        if length > size - 8:
            raise _damaged(path, f"its header should have {length} bytes but the file has {size}; it is truncated")
        text = file.read(length)
    try:
        header = parse_json(text, twice=False)
    except ValueError as error:
        raise _damaged(path, f"its header is no valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    aliases = _aliases(header.pop("__metadata__", None), header)
    start = 8 + length
    entries = (_entry(path, name, entry, start) for name, entry in header.items())
    tensors = sorted(entries, key=lambda tensor: (tensor.offset, tensor.bytes))  # an empty one before what follows it
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            kind = "overlaps the one before" if tensor.offset < end else "leaves a hole after the one before"
            raise _damaged(path, f"tensor {tensor.name!r} at byte {tensor.offset - start} {kind}")
        end += tensor.bytes
    if end != size:
        kind = "truncated" if end > size else "followed by bytes that belong to no tensor"
        raise _damaged(path, f"its tensors end at byte {end} but the file has {size}; it is {kind}")
    return {t.name: replace(t, aliases=aliases[t.name]) if t.name in aliases else t for t in tensors}


def header_bytes(
    tensors: list[tuple[str, torch.dtype, tuple[int, ...]]], metadata: bool = True
) -> tuple[bytes, dict[str, int]]:
    """Length and header for tensors laid out in the order given, with each tensor's absolute offset.

    metadata: whether it says "format": "pt", without which transformers loads no model.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}} if metadata else {}
    offsets, position = {}, 0
    for name, dtype, shape in tensors:
        end = position + prod(shape) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        offsets[name], position = position, end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8, as the format asks
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: start + offset for name, offset in offsets.items()}


def _aliases(metadata: object, header: dict[str, object]) -> dict[str, tuple[str, ...]]:
    """Names that stand for a tensor of another name, by that: {"alias": "name"} among the metadata."""
    aliases: dict[str, tuple[str, ...]] = {}
    for alias, name in sorted(metadata.items()) if isinstance(metadata, dict) else ():
        if isinstance(name, str) and name in header and alias not in header:
            aliases[name] = (*aliases.get(name, ()), alias)
    return aliases


def _entry(path: Path, name: str, entry: object, start: int) -> StoredTensor:
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        sound = (
            type(code) is str and type(shape) is list and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        )
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise _damaged(path, f"tensor {name!r} has no valid dtype, shape and data_offsets")
    if code not in DTYPES:
        raise CheckpointError(f"tensor {name!r} in {str(path)!r} has dtype {code!r}; growkit reads {', '.join(DTYPES)}")
    tensor = StoredTensor(name=name, path=path, dtype=DTYPES[code], shape=tuple(shape), offset=start + begin)
    if end - begin != tensor.bytes:
        raise _damaged(
            path, f"tensor {name!r} of shape {shape} and dtype {code} needs {tensor.bytes} bytes, not {end - begin}"
        )
    if begin % tensor.dtype.itemsize:
        raise _damaged(path, f"tensor {name!r} is misaligned: byte {begin} is no multiple of {tensor.dtype.itemsize}")
    return tensor


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{str(path)!r} is no sound safetensors file: {what}; fetch or save it again")


def file_hash(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file, in hexadecimal; of what was read so far where `stopped` says so."""
    state, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open_plain(path) as file, reading(path):
        while not stopped() and (size := file.readinto(buffer)):
            state.update(buffer[:size])
    return state.hexdigest()
