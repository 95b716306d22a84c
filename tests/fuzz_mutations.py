"""Ways to spoil a file or a line of options, drawn from a generator of random numbers: the same numbers, the same harm."""

import json
import os
import struct
from pathlib import Path
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**90, 0.5, -1.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "0", "64", "nan", "\x1b[31m[red]x[/]", "\ud800", "\u202e"),
    *(
        "../text.txt",
        "/dev/zero",
        "absent",
        "a/b",
        "x" * 5000,
        [],
        {},
        [[]],
        {"": None},
        [None],
        [1, 2, 3],
        ["x"],
        {"x": 1},
    ),
)
WORDS = (
    *("", "0", "1", "2", "3", "-1", "1.5", "1e3", "nan", "inf", "-inf", "1e-300", "1e300", "x", "9" * 31, "9" * 5000, "0x10"),
    *("18446744073709551616", "1000000000000000", "10000000000", "\u0661", "1_0", " 1", "--", "-", "a,b", "1-", "1-9", "2,1", ","),
    *("A:1-2,B:1-2", "1-99999999999", "every", "2nd", "0th", "noise:2", "drop:x", "5GB", "0GB", "-5GB", "1e999GB", "auto", "none"),
    *("\x1b[31m[red]x[/]", "\udcff", "[/]", "x" * 5000, "text.txt", "src", "src/config.json", "src/new", "absent", "a/b"),
    *("absent/x.safetensors", "/dev/null", "/dev/zero", "/dev/null/x", ".", "src+lora", "src:x", "src:nan", "src:1e400", "data"),
)  # fmt: skip


def spoiled(name: str, content: bytes, draw: Random) -> bytes:
    """A file's content with something wrong, by what its name says it is."""
    if draw.random() < 0.15:
        return any_bytes(content, draw)
    if name.endswith(".safetensors"):
        return safetensors(content, draw)
    if name.endswith(".jsonl"):
        lines = content.splitlines()
        place = draw.randrange(len(lines))
        lines[place] = json_text(lines[place], draw)
        return b"\n".join(lines) + b"\n"
    if name.endswith(".json"):
        return json_text(content, draw)
    if name.endswith((".toml", ".yml", ".md", ".txt", ".jinja")):
        return words(content, draw)
    return any_bytes(content, draw)


def any_bytes(content: bytes, draw: Random) -> bytes:
    """Cut, emptied, filled, flipped, doubled: what may happen to any file."""
    at = draw.randrange(len(content) + 1)
    ways = (
        lambda: b"",
        lambda: content[:at],
        lambda: content[at:],
        lambda: content + content,
        lambda: content[:at] + draw.randbytes(8) + content[at:],
        lambda: content[:at] + draw.randbytes(8) + content[at + 8 :],
        lambda: bytes(len(content)),
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        lambda: draw.randbytes(64),
        lambda: b"\xff\xfe" + content,
        lambda: b"\xef\xbb\xbf" + content,
    )
    return draw.choice(ways)()


def json_text(content: bytes, draw: Random) -> bytes:
    """JSON with one to three places changed, or text that is hardly JSON."""
    if draw.random() < 0.15:
        ways = (
            b"[" * 100_000,
            b'{"a":' * 3000 + b"1" + b"}" * 3000,
            b"9" * 6000,
            b"NaN",
            b"null",
            b"[]",
            b"{}",
            b'"x"',
            b"1e999",
        )
        return draw.choice(ways)
    value = json.loads(content)
    for _ in range(draw.randint(1, 3)):
        value = changed(value, draw)
    text = json.dumps(value)
    if draw.random() < 0.05:
        text = text.replace("{", '{"twice": 1, "twice": 2, ', 1)
    return text.encode("utf-8", "surrogatepass")


def changed(value: Any, draw: Random) -> Any:
    """A value with one place changed; a place nearer to the top is likelier."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value)) if isinstance(value, dict) else draw.randrange(len(value))
        inner = value.copy()
        way = draw.random()
        if way < 0.12:
            del inner[key]
        elif way < 0.2 and isinstance(inner, dict):
            inner[draw.choice(("x", "", key + "_", key.upper(), "\x1b[31m"))] = inner.pop(key)
        elif way < 0.25 and isinstance(inner, list):
            inner *= draw.choice((2, 50))
        else:
            inner[key] = changed(value[key], draw)
        return inner
    if type(value) in (int, float) and draw.random() < 0.4:
        return draw.choice(
            (value + 1, value - 1, -value, value * 2, value * 10**6, float(value), str(value), value + 0.5)
        )
    if isinstance(value, str) and draw.random() < 0.4:
        return draw.choice((value + "x", value[:-1], value.upper(), value * 100, [value], {"x": value}))
    return draw.choice(VALUES)


def safetensors(content: bytes, draw: Random) -> bytes:
    """A file whose header says something else than it should, or whose numbers are others."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    way = draw.random()
    if way < 0.1:
        return struct.pack("<Q", draw.choice((0, 1, length + 1, length - 1, 2**40, 2**63, 2**64 - 1))) + header + data
    if way < 0.25 and data:
        value = draw.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff" * 4, b"\x00" * 4)) * 4
        at = draw.randrange(len(data)) & ~7
        return content[: 8 + length] + data[:at] + value[: len(data) - at] + data[at + 16 :]
    entries = json.loads(header)
    names = sorted(set(entries) - {"__metadata__"})
    other = way < 0.5 and names  # sound by itself, and something else than was meant
    entries = renamed(entries, names, draw) if other else changed(entries, draw)
    text = json.dumps(entries).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def renamed(entries: dict[str, Any], names: list[str], draw: Random) -> dict[str, Any]:
    """Another name, shape or dtype for tensors of the same bytes."""
    one, other = draw.choice(names), draw.choice(names)
    entry = entries[one]
    way = draw.randrange(5)
    if way == 0:
        entries[
            draw.choice((one + "x", "x", "", other + ".weight", "\x1b[31m", f"model.{one}", "layers.99999999.x"))
        ] = entries.pop(one)
    elif way == 1:
        entries[one], entries[other] = entries[other], entry
    elif way == 2:
        entry["shape"] = draw.choice((entry["shape"][::-1], [1, *entry["shape"]], [-1], [entry["data_offsets"][1]]))
    elif way == 3:
        width = {"F32": ("I32", "U32"), "F64": ("I64",), "I64": ("F64",), "I32": ("F32",), "BF16": ("F16", "I16")}
        entry["dtype"] = draw.choice(width.get(entry["dtype"], ("F8_E4M3",)))
    else:
        entries["__metadata__"] = draw.choice(({}, {"format": "tf"}, {"format": 5}, [], {"x": "y"}, {one: other}))
    return entries


def words(content: bytes, draw: Random) -> bytes:
    """Text with a line or a word exchanged."""
    lines = content.decode("utf-8", "replace").split("\n")
    place = draw.randrange(len(lines))
    way = draw.randrange(5)
    if way == 0:
        del lines[place]
    elif way == 1:
        lines.insert(place, lines[draw.randrange(len(lines))])
    elif way == 2:
        key = lines[place].partition("=" if "=" in lines[place] else ":")[:2]
        value = draw.choice(VALUES)
        lines[place] = "".join(key) + " " + json.dumps(value)
    elif way == 3:
        lines[place] = "  " * draw.randrange(5) + lines[place]
    else:
        lines[place] = draw.choice(
            ("[" * 3000, "x: " * 3000, "&a [*a]", "a: &a [*a, *a]", "!!python/object:x.y {}", "[[stage]]", "---")
        )
    return "\n".join(lines).encode("utf-8", "replace")


def with_options(line: list[str], options: dict[str, tuple[str, ...]], draw: Random) -> list[str]:
    """A line with one to three options more, whose values are anything. options: by flag, the choices where there are."""
    for flag in draw.sample(sorted(options), draw.randint(1, min(3, len(options)))):
        choices = options[flag]
        value = draw.choice(choices) if choices and draw.random() < 0.6 else draw.choice(WORDS)
        line = [*line, flag if choices == ("",) else f"{flag}={value}"]
    if draw.random() < 0.1:
        place = draw.randrange(1, len(line))
        line[place] = draw.choice(WORDS)
    return line


def spoil(path: Path, draw: Random) -> None:
    """Change a file for the worse, or put something that is no file in its place."""
    content = path.read_bytes()
    if draw.random() < 0.08:
        path.unlink()
        ways = (path.mkdir, lambda: os.mkfifo(path), lambda: None, lambda: path.symlink_to(path.name))
        ways += (
            lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to("/etc/hostname"),
            lambda: path.symlink_to(".."),
        )
        draw.choice(ways)()
    else:
        path.write_bytes(spoiled(path.name, content, draw))
