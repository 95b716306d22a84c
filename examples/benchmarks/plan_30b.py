"""Cost of planning: widen a mixture of Qwen3-30B-A3B's shape x2, from headers alone.

    python examples/benchmarks/plan_30b.py --work /tmp/growkit-bench            # seconds, a few MB of disk

48 layers of 128 experts are 18,867 tensors, 61 GB in 16 files. Planning reads headers only, so the files hold their
header and a hole where the weights would be. Each plan is made in a process of its own; its time begins when everything
is imported and ends with the plan, and peak memory is the process's largest resident size (VmHWM), imports included.
`--before CHECKOUT` plans by another checkout's growkit in turn with this one.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

LAYERS, EXPERTS, HIDDEN, WIDTH, HEADS, KV_HEADS, SIZE, VOCABULARY = 48, 128, 2048, 768, 32, 4, 128, 151936
CONFIG = dict(
    architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", dtype="bfloat16", hidden_act="silu",
    hidden_size=HIDDEN, intermediate_size=6144, moe_intermediate_size=WIDTH, num_hidden_layers=LAYERS,
    num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=SIZE, num_experts=EXPERTS, num_experts_per_tok=8,
    decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True, vocab_size=VOCABULARY, rms_norm_eps=1e-6,
    max_position_embeddings=40960, rope_theta=1000000.0, tie_word_embeddings=False,
)  # fmt: skip
PLAN = """
import json, sys, time
import growkit, growkit.growth.grow_plan, growkit.growth.prepare
start = time.perf_counter()
plan = growkit.widen(sys.argv[1], hidden=int(sys.argv[2]), dry_run=True).plan
seconds = time.perf_counter() - start
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, peak * 1024, plan.peak_bytes, len(plan.tensors)]))
"""


def shapes(layers: int = LAYERS, experts: int = EXPERTS) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape by its name, in the order of the hub's files."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        place = f"model.layers.{layer}."
        attention = {
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HEADS * SIZE, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * SIZE, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * SIZE, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HEADS * SIZE),
            "self_attn.q_norm": (SIZE,),
            "self_attn.k_norm": (SIZE,),
            "mlp.gate": (experts, HIDDEN),
        }
        found |= {f"{place}{name}.weight": shape for name, shape in attention.items()}
        for expert in range(experts):
            found[f"{place}mlp.experts.{expert}.gate_proj.weight"] = (WIDTH, HIDDEN)
            found[f"{place}mlp.experts.{expert}.up_proj.weight"] = (WIDTH, HIDDEN)
            found[f"{place}mlp.experts.{expert}.down_proj.weight"] = (HIDDEN, WIDTH)
    return {**found, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def make_hollow(folder: Path, layers: int = LAYERS, experts: int = EXPERTS) -> None:
    """A checkpoint whose headers are real and whose weights are a hole in the file: zeros that take no room."""
    import torch

    from growkit.checkpoint.writer import layout, write_index, write_json

    entries = [(name, torch.bfloat16, shape) for name, shape in shapes(layers, experts).items()]
    headers, slots, sizes = layout(entries, 4_000_000_000)
    folder.mkdir(parents=True)
    for file, header in headers.items():
        with open(folder / file, "wb") as target:
            target.write(header)
            target.truncate(sizes[file])
    write_index(folder, slots, sum(sizes.values()))
    write_json(folder / "config.json", CONFIG | dict(num_hidden_layers=layers, num_experts=experts))


def plan_cost(source: Path, hidden: int = 2 * HIDDEN, package: Path | None = None) -> tuple[float, int, int, int]:
    """(seconds, peak resident bytes, what the plan says its growth's peak is, tensors). package: growkit's folder."""
    # first of all places: before the current folder, which may be this checkout
    first = "" if package is None else f"import sys; sys.path.insert(0, {str(package)!r})\n"
    command = [sys.executable, "-c", first + PLAN, str(source), str(hidden)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder; a source made before is used again")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is planned; the median counts")
    parser.add_argument("--before", type=Path, help="another checkout of growkit, to plan beside this one")
    arguments = parser.parse_args()
    packages = {"": None} | ({", before": arguments.before.resolve()} if arguments.before else {})
    headings = ["", "tensors", "seconds, median", "lowest to highest", "peak memory", "told, with growing"]
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    for name, size in {"1 layer, 1 expert": (1, 8), "Qwen3-30B-A3B's shape": (LAYERS, EXPERTS)}.items():
        source = arguments.work / f"hollow-{size[0]}-{size[1]}"
        if not source.exists():
            make_hollow(source, *size)
        costs: dict[str, list[tuple[float, int, int, int]]] = {which: [] for which in packages}
        for _ in range(arguments.repeat):
            for which, package in packages.items():
                costs[which].append(plan_cost(source, package=package))
        for which, runs in costs.items():
            seconds = [run[0] for run in runs]
            times = f"{median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f}"
            peak, told = max(run[1] for run in runs) / 1e6, runs[0][2] / 1e6
            print(f"| {name}{which} | {runs[0][3]:,} | {times} | {peak:,.0f} MB | {told:,.0f} MB |")


if __name__ == "__main__":
    main()
