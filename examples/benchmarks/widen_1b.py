"""Memory and speed: widen a 1.1-billion-parameter Llama shape x2, beside `cp` and beside the whole-model-in-memory way.

    python examples/benchmarks/widen_1b.py --work /tmp/growkit-bench            # about 25 GB of disk, 5 minutes
    python examples/benchmarks/widen_1b.py --work /tmp/growkit-bench --small    # a 70 M shape, seconds

Everything runs in one go on one disk, each command in a process of its own, and each figure is a ratio to the time `cp`
takes, in the same run, to copy as many bytes as growkit reads plus writes. Peak memory is the kernel's own account of the
finished process (ru_maxrss). "cp" and growkit both end with the bytes on disk.

The peer: HyperCloning (arXiv 2409.12903) grows a live model, so the source, the target and what it builds on the way are
all in memory. The row "in memory" is that way in thirty lines of stock transformers. To run HyperCloning itself, install
it and its supported transformers in an environment of its own and put the following between two calls of `date`:
    model = AutoModelForCausalLM.from_pretrained(SRC, torch_dtype="bfloat16")
    cloneModel(model, embedding_dim_multiplier=2, up_project_multiplier=2).save_pretrained(DST)
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

BIG = dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32)
SMALL = dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8)
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


def make_source(folder: Path, shape: dict) -> None:
    """Random bfloat16 weights in shards of 700 MB, without ever holding the model."""
    import torch  # here, because a process that starts others lends them its own size in the kernel's account

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
    folder.mkdir(parents=True)
    pattern = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    for file, header in headers.items():
        with open(folder / file, "wb") as target:
            target.write(header)
            for _, _, dimensions in (entry for entry in entries if slots[entry[0]].file == file):
                count = torch.Size(dimensions).numel()
                values = (
                    pattern.repeat(-(-count // len(pattern)))[:count]
                    if len(dimensions) > 1
                    else torch.ones_like(pattern[:count])
                )
                target.write(values.view(torch.uint8).numpy().tobytes())
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", dtype="bfloat16", hidden_act="silu")
    config |= dict(num_key_value_heads=kv, vocab_size=vocabulary, max_position_embeddings=2048, rms_norm_eps=1e-5)
    write_json(folder / "config.json", config | dict(tie_word_embeddings=False) | shape)
    total = sum(torch.Size(dimensions).numel() for _, _, dimensions in entries)
    write_index(folder, slots, 2 * total)


def run(command: list[str]) -> tuple[float, float]:
    """(seconds until the bytes are on disk, peak resident MB of the process)."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="an empty or absent folder with about 25 GB free")
    parser.add_argument("--small", action="store_true", help="a 70 M shape instead of 1.1 B")
    parser.add_argument("--make", action="store_true", help="only make the source")
    parser.add_argument("--no-peer", action="store_true", help="leave out the in-memory way (needs 15 GB of memory)")
    arguments = parser.parse_args()
    source, target = arguments.work / "source", arguments.work / "grown"
    shape = SMALL if arguments.small else BIG
    if arguments.make:
        make_source(source, shape)
        return
    shutil.rmtree(arguments.work, ignore_errors=True)
    subprocess.run([sys.executable, *sys.argv, "--make"], check=True)
    parameters = folder_bytes(source) / 2
    wide = str(2 * shape["hidden_size"])
    growkit = [
        sys.executable,
        "-m",
        "growkit",
        "widen",
        str(source),
        "--hidden",
        wide,
        "--no-verify",
        "--force",
        "-o",
        str(target),
    ]
    rows = [("growkit --noise 0", *run([*growkit, "--noise", "0"])), ("growkit (default noise)", *run(growkit))]
    moved = folder_bytes(source) + folder_bytes(target)
    copied = arguments.work / "copied"
    copied.mkdir()
    cp = run(["cp", "-r", str(source), str(target), str(copied)])
    shutil.rmtree(copied)
    rows.insert(0, ("cp of as many bytes", *cp))
    if not arguments.no_peer:
        shutil.rmtree(target)
        rows.append(("in memory", *run([sys.executable, "-c", IN_MEMORY, str(source), str(target)])))
    shutil.rmtree(arguments.work)
    print(f"\n{parameters / 1e9:.2f} B parameters, bfloat16, hidden x2; {moved / 1e9:.2f} GB read plus written\n")
    print("| | seconds | of cp's time | peak memory |\n|---|---|---|---|")
    for name, seconds, peak in rows:
        print(f"| {name} | {seconds:.1f} | {seconds / cp[0]:.2f} | {peak:,.0f} MB |")


if __name__ == "__main__":
    main()
