"""Memory and speed: widen a 1.1-billion-parameter Llama shape x2, beside `cp` and beside the whole-model-in-memory way.

    python examples/benchmarks/widen_1b.py --work /tmp/growkit-bench            # about 20 GB of disk, 6 minutes
    python examples/benchmarks/widen_1b.py --work /tmp/growkit-bench --small    # a 56 M shape, seconds
    python examples/benchmarks/widen_1b.py --work /tmp/growkit-bench --before CHECKOUT    # beside another growkit

Everything runs in one go on one disk, in turn, each command in a process of its own. Two yardsticks: the time `cp`
takes to copy growkit's result (as many bytes written, each read once), and to copy the source and the result, which are
the bytes that growkit reads and writes. Peak memory is the kernel's own account of the finished process (ru_maxrss).
All end with the bytes on disk.

The peer: HyperCloning (arXiv 2409.12903) grows a live model, so the source, the target and what it builds on the way
are all in memory. The row "in memory" is that way in thirty lines of stock transformers. To run HyperCloning itself,
install it and its supported transformers in an environment of its own and put the following between two calls of
`date`:
    model = AutoModelForCausalLM.from_pretrained(SRC, torch_dtype="bfloat16")
    cloneModel(model, embedding_dim_multiplier=2, up_project_multiplier=2).save_pretrained(DST)
"""

import argparse
import shutil
import sys
from pathlib import Path

from big import BIG, SMALL, before, folder_bytes, in_turn, rows_of, run, source_at

CP, BOTH = "cp of the result", "cp of bytes read and written"

IN_MEMORY = """
import sys, torch, transformers
source = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
    setattr(config, key, 2 * getattr(config, key))
with torch.device("meta"):
    target = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
target.to_empty(device="cpu")
theirs = source.state_dict()
with torch.no_grad():
    for name, parameter in target.state_dict().items():
        old = theirs[name]
        if old.dim() == 1:
            parameter.copy_(old.repeat(2))
        elif "embed_tokens" in name:
            parameter.copy_(old.repeat(1, 2))
        elif "lm_head" in name:
            parameter.copy_(old.repeat(1, 2) / 2)
        else:
            parameter.copy_(old.repeat(2, 2) / 2)
target.save_pretrained(sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder with about 25 GB free; a source made before is used again"
    )
    parser.add_argument("--small", action="store_true", help="a 56 M shape instead of 1.1 B")
    parser.add_argument("--no-peer", action="store_true", help="leave out the in-memory way (needs 15 GB of memory)")
    parser.add_argument("--before", type=Path, help="another checkout of growkit, to run beside this one")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is run, in turn; the median counts")
    arguments = parser.parse_args()
    source, target = arguments.work / ("source-small" if arguments.small else "source"), arguments.work / "widened"
    shape = SMALL if arguments.small else BIG
    if not source.exists():
        source_at(source, arguments.small)
    parameters = folder_bytes(source) / 2
    wide = str(2 * shape["hidden_size"])
    growkit = [sys.executable, "-m", "growkit", "widen", str(source), "--hidden", wide, "--no-verify", "--force"]
    growkit += ["-o", str(target)]
    copied = arguments.work / "copied"
    commands = {
        CP: ["cp", "-r", str(target), str(copied)],
        BOTH: ["sh", "-c", 'mkdir "$2" && cp -r "$0" "$1" "$2"', str(source), str(target), str(copied)],
        **before(growkit, arguments.before),
        "growkit --noise 0": [*growkit, "--noise", "0"],
        "growkit (default noise)": growkit,
        "in memory": [sys.executable, "-c", IN_MEMORY, str(source), str(target)],
    }
    if arguments.no_peer:
        del commands["in memory"]
    run(growkit)  # not counted: cp needs something to copy
    written = folder_bytes(target)
    measured = in_turn(commands, arguments.repeat, copied)
    shutil.rmtree(target)
    print(f"\n{parameters / 1e9:.2f} B parameters, bfloat16, hidden x2: {written / 1e9:.2f} GB\n")
    others = [CP, BOTH, *before(growkit, arguments.before)]
    headings = ["", "seconds, median", "lowest to highest", *(f"of {other}'s" for other in others), "peak memory"]
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    print(*rows_of(measured, *others), sep="\n")


if __name__ == "__main__":
    main()
