"""Memory and speed: a 1.1-billion-parameter Llama shape made a mixture of four experts, beside `cp` of the result.

    python examples/benchmarks/upcycle_1b.py --work /tmp/growkit-bench            # about 18 GB of disk
    python examples/benchmarks/upcycle_1b.py --work /tmp/growkit-bench --small    # a 56 M shape, seconds

Everything runs in one go on one disk, each command in a process of its own, in turn, with the bytes on disk at the end.
Peak memory is the kernel's own account of the finished process (ru_maxrss).
"""

import argparse
import shutil
import sys
from pathlib import Path
from statistics import median

from big import folder_bytes, in_turn, run, source_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder with room; a source made before is used again"
    )
    parser.add_argument("--small", action="store_true", help="a 56 M shape instead of 1.1 B")
    parser.add_argument("--experts", default="4")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is run, in turn; the median counts")
    arguments = parser.parse_args()
    source, target = arguments.work / ("source-small" if arguments.small else "source"), arguments.work / "upcycled"
    if not source.exists():
        source_at(source, arguments.small)
    growkit = [sys.executable, "-m", "growkit", "upcycle", str(source), "--experts", arguments.experts, "--no-verify"]
    growkit += ["--force", "-o", str(target)]
    copied = arguments.work / "copied"
    commands = {
        "cp of the result": ["cp", "-r", str(target), str(copied)],
        "growkit, copies": growkit,
        "growkit, `--diversity drop`": [*growkit, "--diversity", "drop"],
    }
    run(growkit)  # not counted: cp needs something to copy
    before, written = folder_bytes(source), folder_bytes(target)
    measured = in_turn(commands, arguments.repeat, copied)
    shutil.rmtree(target)
    print(f"\n{before / 1e9:.2f} GB, bfloat16, to {arguments.experts} experts: {written / 1e9:.2f} GB\n")
    print("| | seconds, median | lowest to highest | peak memory |\n|---|---|---|---|")
    for name, runs in measured.items():
        low, high = min(runs)[0], max(runs)[0]
        peak = max(memory for _, memory in runs)
        print(f"| {name} | {median(s for s, _ in runs):.1f} | {low:.1f} to {high:.1f} | {peak:,.0f} MB |")


if __name__ == "__main__":
    main()
