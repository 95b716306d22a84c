"""What same_bytes.py keeps of files and printed text, what it leaves out of them, and where two recordings differ."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What no two runs agree on, or two versions: (where it is looked for, what it is). Everything else counts.
MEMORY = "peak memory, which is an estimate"
VERSION = "the version of growkit or torch"
CLOCK = "seconds, and what is divided by them"
VOLATILE = {
    VERSION: r'(?<="growkit": )"[^"]*"|(?<="torch": )"[^"]*"|(?<=growkit )\d+(?:\.\w+)+',
    MEMORY: r'(?<="peak_memory_bytes": )\d+|(?<=peak memory)\s+about [\d.]+ ?\w+',
    CLOCK: r'(?<="seconds": )[\d.e+-]+|(?<="elapsed_s": )[\d.e+-]+|(?<="tok_per_s": )[\d.e+-]+'
    r'|(?<="data_fraction": )[\d.e+-]+|[\d,]+(?= tokens/s)',
}
CLOCKED = ("metrics.jsonl", "trainer.json", "the terminal")  # elsewhere seconds are what a file said, and count
# Small texts that are kept as they are beside their digest, so that a difference can be read.
READABLE = (
    "growkit.json",
    "run.json",
    "meta.json",
    "report.json",
    "report.md",
    "README.md",
    "metrics.jsonl",
    "trainer.json",
)


def files(folder: Path, without: str = "") -> dict[str, Any]:
    """Of every file below a folder, links left out, its digest; of small texts what they say too."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part.is_symlink() for part in (path, *path.parents)) or not path.is_file():
            continue
        if path.name in READABLE:
            text = calm(path.read_text("utf-8"), path.name)
            found[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "says": parsed(text)}
        else:
            found[name] = hashlib.sha256(_silenced(path, without) if without else path.read_bytes()).hexdigest()
    return found


def _silenced(path: Path, without: str) -> bytes:
    """A file; one of weights with zeros in the tensors that do not count."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".safetensors":
        start = 8 + int.from_bytes(content[:8], "little")
        for name, tensor in json.loads(content[8:start]).items():
            if re.search(without, name):
                first, last = (start + offset for offset in tensor["data_offsets"])
                content[first:last] = bytes(last - first)
    return bytes(content)


def calm(text: str, where: str) -> str:
    """A text without what is volatile in it."""
    for what, pattern in VOLATILE.items():
        if what != CLOCK or where in CLOCKED:
            text = re.sub(pattern, '"left out"' if '"' in pattern else "left out", text)
    return text


def parsed(text: str) -> Any:
    """A text as JSON, as lines of JSON, or as its lines."""
    try:
        return json.loads(text)
    except ValueError:
        lines = text.splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        return lines


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Each place where two recordings differ, with what they say there; the order of keys counts."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other:
                yield f"{where} {key}: only {'before' if key in one else 'after'}"
            else:
                yield from differences(one[key], other[key], f"{where} {key}".strip())
        if [key for key in one if key in other] != [key for key in other if key in one]:
            yield f"{where}: keys in another order"
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{where}[{number}]")
    elif one != other or type(one) is not type(other):
        yield f"{where}: {json.dumps(one)[:300]} -> {json.dumps(other)[:300]}"
