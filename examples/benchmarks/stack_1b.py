"""Memory and speed in depth: stack a 1.1-billion-parameter Llama shape on itself, beside mergekit and beside `cp`.

    python -m venv MERGEKIT                      # an environment of its own; torch first, so that it is the CPU's
    MERGEKIT/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    MERGEKIT/bin/pip install mergekit==0.1.5
    python examples/benchmarks/stack_1b.py --work DIR --mergekit MERGEKIT/bin/mergekit-yaml    # 6 minutes
    python examples/benchmarks/stack_1b.py --work DIR --mergekit MERGEKIT/bin/mergekit-yaml --small    # a 56 M shape

The same stack three ways, all in one run on one disk, the whole model twice: `growkit stack --layers`; mergekit's
passthrough merge of two slices, each the whole model; and, as the yardstick, `cp` of the result: the bytes all of them
write, read once (a stack need read only half of them, the source). mergekit is measured as it comes and with the two
options its maintainers advise where memory is short (github.com/arcee-ai/mergekit issue 20), which are also the faster
ones here; ratios are to the latter.

`--before CHECKOUT` runs another checkout's growkit beside this one, in the same turns.

A first round warms the page cache, is not counted, and compares: every tensor of growkit's result must be, byte for
byte, the tensor of the source it was taken from, and mergekit's. Rounds after it take turns in who goes first; the
table has their medians. Each time ends when the bytes are on disk: growkit flushes its own files, and for all alike the
clock stops after a `sync`, begun from a clean slate by a `sync` before. Peak memory is the kernel's account of the
finished process (ru_maxrss, the largest of the rounds); it counts pages of mapped files, by which mergekit reads, for
as long as they stay. DIR keeps the source for the next run; what was made from it is removed.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from big import BIG, SMALL, before, folder_bytes, rows_of, run, source_at

LEAN = ("--lazy-unpickle", "--out-shard-size", "500M")
CHUNK = 1 << 20
CONFIG = """\
slices:
  - sources:
    - model: {source}
      layer_range: [0, {layers}]
  - sources:
    - model: {source}
      layer_range: [0, {layers}]
merge_method: passthrough
dtype: bfloat16
"""

Place = tuple[Path, int, int, str, list[int]]  # file, offset, bytes, dtype, shape


def tensors(folder: Path) -> dict[str, Place]:
    """Where each tensor of a folder of safetensors files lies, read with nothing but the format's description."""
    places: dict[str, Place] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if name in places:
                raise SystemExit(f"{folder} has {name} twice")
            places[name] = (path, 8 + size + begin, end - begin, entry["dtype"], entry["shape"])
    return places


def same(left: Place, right: Place) -> bool:
    """Whether two tensors are byte-identical; a megabyte at a time."""
    if left[2:] != right[2:]:
        return False
    with open(left[0], "rb") as one, open(right[0], "rb") as other:
        one.seek(left[1])
        other.seek(right[1])
        return all(
            one.read(min(CHUNK, left[2] - done)) == other.read(min(CHUNK, left[2] - done))
            for done in range(0, left[2], CHUNK)
        )


def compare(what: str, expected: dict[str, Place], found: dict[str, Place]) -> bool:
    """Say whether two sets of tensors are the same, by name, dtype, shape and bytes."""
    wrong = sorted(expected.keys() ^ found.keys())
    wrong += [name for name in expected.keys() & found.keys() if not same(expected[name], found[name])]
    if wrong:
        print(f"DIFFERENT: {what}: {len(wrong)} of {len(expected)} tensors, such as {', '.join(wrong[:3])}")
    else:
        total = sum(place[2] for place in found.values())
        print(f"{what}: all {len(found)} tensors, {total:,} bytes, are byte-identical")
    return not wrong


def twice(source: dict[str, Place], layers: int) -> dict[str, Place]:
    """What the stack must be: each layer of the source, and again `layers` above it."""
    stacked = dict(source)
    for name, place in source.items():
        parts = name.split(".")
        if parts[:2] == ["model", "layers"]:
            stacked[".".join([*parts[:2], str(int(parts[2]) + layers), *parts[3:]])] = place
    return stacked


def table(rows: dict[str, list[tuple[float, float]]], others: dict[str, str]) -> None:
    """others: what each row is compared with -> what its column is called; the first stands first."""
    headings = ["", f"seconds, median of {len(rows['growkit'])}", "lowest to highest"]
    headings += [*(f"of {name}'s" for name in others.values()), "peak memory"]
    print(f"\n| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    first = next(iter(others))
    print(*rows_of({name: rows[name] for name in sorted(rows, key=lambda name: name != first)}, *others), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder with 11 GB free, 2 of them for the source")
    parser.add_argument("--mergekit", type=Path, help="mergekit-yaml of an environment of its own; absent: left out")
    parser.add_argument("--small", action="store_true", help="a 56 M shape instead of 1.1 B")
    parser.add_argument("--before", type=Path, help="another checkout of growkit, to run beside this one")
    parser.add_argument("--repeat", type=int, default=3, help="rounds that count")
    arguments = parser.parse_args()
    layers = (SMALL if arguments.small else BIG)["num_hidden_layers"]
    work = arguments.work.resolve()
    source = work / ("source-small" if arguments.small else "source")
    if not source.is_dir():
        source_at(source, arguments.small)
    config = work / "mergekit.yml"
    config.write_text(CONFIG.format(source=json.dumps(str(source)), layers=layers), "utf-8")
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on disk; nobody's time is to depend on a network

    grown, copied, merged, earlier = (
        work / f"stacked-by-{name}" for name in ("growkit", "cp", "mergekit", "growkit-before")
    )
    cp, lean = "cp of the result", f"mergekit `{' '.join(LEAN)}`"
    stack = [sys.executable, "-m", "growkit", "stack", str(source), "--layers", str(2 * layers), "-o", str(grown)]
    growkit = [*stack, "--no-verify"]
    older = before([*growkit[:-2], str(earlier), growkit[-1]], arguments.before)
    ways: dict[str, tuple[Path, list[str]]] = {
        "growkit": (grown, growkit),
        cp: (copied, ["cp", "-r", str(grown), str(copied)]),
        **{name: (earlier, command) for name, command in older.items()},
    }
    if arguments.mergekit is not None:
        merge = [str(arguments.mergekit), str(config), str(merged), "--no-copy-tokenizer", "--quiet"]
        ways |= {"mergekit, as it comes": (merged, merge), lean: (merged, [*merge, *LEAN])}

    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    correct, size = True, 0
    for turn in range(arguments.repeat + 1):
        order = list(ways) if turn == 0 else list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in order:
            target, command = ways[name]
            shutil.rmtree(target, ignore_errors=True)
            measured = run(command)
            if turn:
                rows[name].append(measured)
            elif name == "growkit":
                size = folder_bytes(grown)
                correct &= compare("growkit and the source", twice(tensors(source), layers), tensors(grown))
            elif target in (merged, earlier):
                correct &= compare(f"growkit and {name}", tensors(target), tensors(grown))
            if target != grown:
                shutil.rmtree(target)
    shutil.rmtree(grown)
    config.unlink()

    parameters = folder_bytes(source) / 2e9
    print(f"\n{parameters:.2f} B parameters, bfloat16, {layers} layers made {2 * layers}: {size / 1e9:.2f} GB")
    others = {cp: "cp"} | ({lean: "mergekit"} if arguments.mergekit is not None else {})
    table(rows, others | {name: name for name in older})
    if arguments.mergekit is None:
        print("\nmergekit was left out: --mergekit, and how to get it in the first lines of --help")
    if not correct:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
