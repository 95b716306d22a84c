"""Memory and speed of merging: three 1.1-billion-parameter Llama shapes in bfloat16 by DARE, beside mergekit.

    python examples/benchmarks/merge_1b.py --work DIR --mergekit MERGEKIT/bin/mergekit-yaml            # 12 GB of disk
    python examples/benchmarks/merge_1b.py --work DIR --mergekit MERGEKIT/bin/mergekit-yaml --small    # a 56 M shape

An environment for mergekit is made as in stack_1b.py. The members are the base with noise of a hundredth of its
weights' size. mergekit's dare_linear is given the same density and weights, seed 0, float32 arithmetic and bfloat16
output, and the two options its maintainers advise where memory is short; it rescales by another rule than the paper's,
so results differ in value and are not compared. Each time ends when the bytes are on disk. Peak memory is the kernel's
account of the finished process (ru_maxrss), which counts pages of mapped files, by which mergekit reads. The first
round is not counted.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from big import folder_bytes, run, source_at

MEMBERS = ("one", "two", "three")
CONFIG = """\
merge_method: dare_linear
base_model: {base}
models:
{models}
parameters: {{density: 0.1, weight: 0.5, normalize: false}}
dtype: float32
out_dtype: bfloat16
"""
NOISE = """
import sys, torch
from safetensors import safe_open
from safetensors.torch import save_file
generator = torch.Generator().manual_seed(int(sys.argv[3]))
with safe_open(sys.argv[1], "pt") as file:
    tensors = {}
    for name in file.keys():
        weight = file.get_tensor(name)
        noise = torch.randn(1 << 20, generator=generator) * 2e-4
        repeated = noise.repeat(-(-weight.numel() // len(noise)))[:weight.numel()].view(weight.shape)
        tensors[name] = (weight.float() + repeated).to(weight.dtype)
save_file(tensors, sys.argv[2], {"format": "pt"})
"""


def member_of(base: Path, folder: Path, seed: int) -> None:
    """A model a little way off the base, shard by shard, each in a process of its own."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for path in base.iterdir():
        if path.suffix == ".safetensors":
            subprocess.run([sys.executable, "-c", NOISE, path, unfinished / path.name, str(seed)], check=True)
        else:
            shutil.copy(path, unfinished)
    unfinished.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder with 12 GB free")
    parser.add_argument("--mergekit", type=Path, help="mergekit-yaml of an environment of its own; absent: left out")
    parser.add_argument("--small", action="store_true", help="a 56 M shape instead of 1.1 B")
    parser.add_argument("--repeat", type=int, default=3, help="rounds that count")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    base = work / ("source-small" if arguments.small else "source")
    if not base.is_dir():
        source_at(base, arguments.small)
    members = [work / f"{base.name}-{name}" for name in MEMBERS]
    for seed, member in enumerate(members):
        if not member.is_dir():
            member_of(base, member, seed)
    os.environ["HF_HUB_OFFLINE"] = "1"
    config, out, theirs = work / "merge.yml", work / "merged-by-growkit", work / "merged-by-mergekit"
    models = "\n".join(f"  - model: {json.dumps(str(member))}" for member in members)
    config.write_text(CONFIG.format(base=json.dumps(str(base)), models=models), "utf-8")
    merge = [sys.executable, "-m", "growkit", "merge", *(f"{member}:0.5" for member in members), "--base", str(base)]
    ways = {"growkit": (out, [*merge, "--method", "dare", "--drop", "0.9", "-o", str(out)])}
    if arguments.mergekit is not None:
        lean = ["--lazy-unpickle", "--out-shard-size", "500M", "--no-copy-tokenizer", "--quiet", "--random-seed", "0"]
        ways["mergekit"] = (theirs, [str(arguments.mergekit), str(config), str(theirs), *lean])
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(arguments.repeat + 1):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            target, command = ways[name]
            shutil.rmtree(target, ignore_errors=True)
            measured = run(command)
            if turn:
                rows[name].append(measured)
            shutil.rmtree(target)
    config.unlink()
    print(f"\n3 members and a base of {folder_bytes(base) / 2e9:.2f} B parameters, bfloat16, DARE with p = 0.9\n")
    print(f"| | seconds, median of {arguments.repeat} | lowest to highest | peak memory |\n|---|---|---|---|")
    for name, measures in rows.items():
        seconds = [second for second, _ in measures]
        peak = max(peak for _, peak in measures)
        print(
            f"| {name} | {statistics.median(seconds):.1f} | {min(seconds):.1f} to {max(seconds):.1f} | {peak:,.0f} MB |"
        )
    for member in members:
        shutil.rmtree(member)


if __name__ == "__main__":
    main()
