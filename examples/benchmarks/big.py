"""What the benchmarks on a 1.1-billion-parameter Llama shape share: its checkpoint, and the measuring of a finished
process.

    python examples/benchmarks/big.py FOLDER [--small]      # makes the checkpoint: 2.2 GB, or 113 MB

Nothing here loads torch but the making of a checkpoint, which therefore happens in a process of its own: one that
starts others lends them its own size in the kernel's account.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

BIG = dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32)
SMALL = dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8)


def source_at(folder: Path, small: bool) -> None:
    """Make the checkpoint, in a process of its own."""
    subprocess.run([sys.executable, __file__, str(folder), *(["--small"] if small else [])], check=True)


def make_source(folder: Path, shape: dict) -> None:
    """Random bfloat16 weights in shards of 700 MB, without ever holding the model; no two tensors are equal."""
    import torch

    from growkit.checkpoint.writer import layout, write_index, write_json

    hidden, ffn, heads, vocabulary, kv = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_attention_heads"],
        32000,
        4,
    )
    size = hidden // heads
    tensors = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(shape["num_hidden_layers"]):
        tensors |= {
            f"model.layers.{layer}.{name}.weight": dimensions
            for name, dimensions in {
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (kv * size, hidden),
                "self_attn.v_proj": (kv * size, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (ffn, hidden),
                "mlp.up_proj": (ffn, hidden),
                "mlp.down_proj": (hidden, ffn),
            }.items()
        }
    entries = [(name, torch.bfloat16, dimensions) for name, dimensions in tensors.items()]
    headers, slots, _ = layout(entries, 700_000_000)
    pattern = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    for file, header in headers.items():
        with open(unfinished / file, "wb") as target:
            target.write(header)
            for number, (name, _, dimensions) in enumerate(entries):
                if slots[name].file != file:
                    continue
                count = torch.Size(dimensions).numel()
                values = pattern.roll(4099 * number).repeat(-(-count // len(pattern)))[:count]
                if len(dimensions) == 1:
                    values = values + 1
                target.write(values.view(torch.uint8).numpy().tobytes())
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", dtype="bfloat16", hidden_act="silu")
    config |= dict(num_key_value_heads=kv, vocab_size=vocabulary, max_position_embeddings=2048, rms_norm_eps=1e-5)
    write_json(unfinished / "config.json", config | dict(tie_word_embeddings=False) | shape)
    total = sum(torch.Size(dimensions).numel() for _, _, dimensions in entries)
    write_index(unfinished, slots, 2 * total)
    unfinished.rename(folder)


def run(command: list[str]) -> tuple[float, float]:
    """(seconds until the bytes are on disk, peak resident MB of the process)."""
    with tempfile.TemporaryFile() as errors:
        os.sync()
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        os.sync()
        seconds = time.perf_counter() - start
        if status:
            errors.seek(0)
            raise SystemExit(f"{errors.read().decode(errors='replace')}\n{' '.join(command)} failed")
    return seconds, usage.ru_maxrss / 1024


def before(command: list[str], checkout: Path | None) -> dict[str, list[str]]:
    """The same command, PYTHON -m growkit ..., by another checkout, as a row of a table; none without one."""
    if checkout is None:
        return {}
    if not (checkout / "growkit" / "__main__.py").is_file():
        raise SystemExit(f"{str(checkout)!r} is no checkout of growkit")
    # first of all places: before the current folder, which may be this checkout and which PYTHONPATH comes after
    package = str(checkout.resolve())
    code = f"import runpy, sys; sys.path.insert(0, {package!r}); runpy.run_module('growkit', None, '__main__', True)"
    return {"growkit before": [command[0], "-c", code, *command[3:]]}


def rows_of(measured: dict[str, list[tuple[float, float]]], *others: str) -> Iterator[str]:
    """Rows of a table: median, lowest and highest seconds, the median over each of the others', and peak memory."""
    medians = {name: median(seconds for seconds, _ in runs) for name, runs in measured.items()}
    for name, runs in measured.items():
        ratios = "".join(f" {medians[name] / medians[other]:.2f} |" for other in others)
        low, high, peak = min(runs)[0], max(runs)[0], max(memory for _, memory in runs)
        yield f"| {name} | {medians[name]:.1f} | {low:.1f} to {high:.1f} |{ratios} {peak:,.0f} MB |"


def in_turn(commands: dict[str, list[str]], repeat: int, copied: Path) -> dict[str, list[tuple[float, float]]]:
    """What run says of each command, `repeat` times in turn, each on a disk at rest; what cp copied is removed again."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(repeat):
        for name, command in commands.items():
            os.sync()  # what the one before left to write, and what was removed, is not this one's time
            measured[name].append(run(command))
            if name.startswith("cp"):
                shutil.rmtree(copied)
    return measured


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a 56 M shape instead of 1.1 B")
    arguments = parser.parse_args()
    make_source(arguments.folder, SMALL if arguments.small else BIG)
