"""The commands that same_bytes.py runs, as tables: what is asked of every family, and what is asked once."""

from collections.abc import Iterator

from same_bytes import Case
from same_bytes_once import ONCE, RUNS, TEXTS, TRAIN
from same_bytes_refusals import REFUSALS

FAMILIES = (
    "bert", "roberta", "distilbert", "gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2",
    "olmo2", "phi", "mixtral", "qwen2_moe", "qwen3_moe",
)  # fmt: skip
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")

# For each family F, whose second model is F-2; F.adam.safetensors is AdamW's state. What a family cannot do is refused,
# and the refusal is recorded.
GROWING = {
    "widen F": [
        "--hidden 48", "--hidden 36", "--hidden 60 --mapping random", "--hidden 48 --mapping random --seed 7",
        "--heads 8", "--kv-heads 4", "--head-dim 12", "--head-dim 8", "--ffn 100", "--hidden 48 --ffn 100 --method aki",
        "--hidden 36 --method aki --noise 0.25", "--hidden 48 --noise 0", "--hidden 36 --noise 0",
        "--hidden 48 --dtype bfloat16", "--hidden 36 --dtype float16", "--hidden 48 --shard-size 20KB",
        "--hidden 48 --optimizer F.adam.safetensors", "--hidden 36 --optimizer F.adam.safetensors --noise 0",
        "--ffn 120 --hidden 48 --heads 8 --seed 3 --json", "--hidden 36 --dry-run --json",
        "--hidden 48 --method aki --dry-run --json",
    ],
    "stack F": [
        "--layers 6", "--layers 7 --seed 2", "--layers 6 --method interleave", "--layers 5 --method top",
        "--layers 6 --method top --block 1", "--layers 5 --method middle --block 1", "--method identity --every 1",
        "--method identity --after 1,3", "--method identity --layers 5", "--method solar --overlap 1",
        "--layers 4 --method solar", "--slices 1-2,2-3,1", "--slices 3,1", "--layers 6 --optimizer F.adam.safetensors",
        "--method identity --every 2 --optimizer F.adam.safetensors --dtype bfloat16", "--layers 6 --dry-run --json",
    ],
    "stack F F-2": [
        "", "--method interleave --json", "--layers 8", "--slices A:1-2,B:2-3", "--dry-run --json",
        "--optimizer F.adam.safetensors --optimizer F-2.adam.safetensors",
    ],
    "grow F": [
        "--hidden 48 --layers 6", "--hidden 36 --layers 5 --depth identity", "--like F-larger",
        "--ffn 120 --layers 4 --depth top", "--hidden 48 --method aki --layers 6 --depth interleave",
        "--hidden 48 --slices 1-3,2-3 --optimizer F.adam.safetensors",
        "--like F-larger --depth identity --dtype bfloat16 --shard-size 20KB", "--like F-larger --dry-run --json",
    ],
    "fuse F F-2": [
        "", "--mode fpi", "--mode aki", "--mode fpi --hidden 60", "--mode fpi --hidden 48 --noise 0 --mapping random",
        "--dtype bfloat16 --json", "--optimizer F.adam.safetensors --optimizer F-2.adam.safetensors",
        "--dry-run --json", "--mode aki --dry-run --json",
    ],
    "fuse F F-2 F-a": ["", "--mode aki --hidden 72"],
}  # fmt: skip
MERGES = [
    "--method dare", "--method task-arithmetic", "--method ties", "--method dare-ties", "--method della",
    "--method breadcrumbs", "--method average", "--method slerp", "--method tsv", "--method iso-c",
    "--drop 0.9 --scale 0.7 --seed 3 --drop-vectors --shard-size 20KB",
    "--method ties --density 0.5 --dtype bfloat16 --json", "--dry-run --json",
]  # fmt: skip
DENSE = {"llama": "llama-plain", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3"}
UPCYCLING = [
    "", "--experts 4", "--experts 8 --top-k 4 --granularity 4",
    "--experts 6 --top-k 4 --granularity 2 --dtype bfloat16", "--experts 4 --shared", "--experts 4 --diversity noise",
    "--experts 4 --diversity drop", "--experts 4 --diversity drop:0.25",
    "--experts 4 --diversity noise:0.3 --seed 5 --shard-size 20KB", "--experts 4 --layers 2nd",
    "--experts 4 --layers 1,3 --json", "--experts 4 --dry-run --json", "--experts 4 --diversity drop --dry-run --json",
]  # fmt: skip
PARTS = [
    "--experts 4",
    "--experts 4 --diversity drop --top-k 1",
    "--experts 8 --granularity 2",
    "--experts 4 --dry-run --json",
]


def all_cases() -> Iterator[Case]:
    """Every case, the quick ones first."""
    for family in FAMILIES:
        for command, requests in GROWING.items():
            if command.startswith("fuse") and family in MIXTURES:
                requests = requests[:1]  # refused, whatever is asked
            for request in requests:
                yield Case(*_growing(f"{command} {request}".replace("F", family).strip()))
        for request in MERGES:
            asked = f"merge {family}-a {family}-b:0.5 --base {family} {request}"
            yield Case(asked, (f"{asked} -o out",))
        yield Case(f"delta {family}", tuple(_deltas(family)))
        yield Case(f"inspect {family}", (f"inspect {family} --json",))
        if family not in DENSE.values():
            yield Case(f"upcycle {family}", (f"upcycle {family} --no-verify -o out",))
        yield Case(f"init {family}", (f"init {family} --seed 3 -o out --json",))
        grown = f"widen {family} --hidden 48 --no-verify -o out"
        yield Case(
            f"verify {family}", (grown, f"verify {family} out --json", f"verify {family} {family}-2 --json"), rounded=2
        )
    for family, source in DENSE.items():
        for request in UPCYCLING:
            yield Case(*_growing(f"upcycle {source} {request}".strip()))
        for request in PARTS:
            other = f"{source}-2" if family == "llama" else f"{family}-a"
            yield Case(*_growing(f"upcycle {source} {other} {request}"))
    for name, lines in ONCE.items():
        yield Case(name, tuple(lines))
    for name, lines in TEXTS.items():
        yield Case(name, tuple(lines), rounded=2 if name.startswith("verify") else None)
    for line in REFUSALS:
        yield Case(f"refused: {line}", (line,))
    for name, asked in RUNS.items():
        yield Case(name, (f"pretrain {asked} {TRAIN} --dry-run --json", f"pretrain {asked} {TRAIN}"))
    yield Case("pretrain resumed", tuple(_resumed(f"pretrain gpt2 --steps 8 {TRAIN}")))
    grown = f"pretrain llama --steps 10 --schedule stackbert --to-layers 6 {TRAIN} --save-every 2 --keep 9"
    yield Case(
        "pretrain resumed across growth",
        tuple(_resumed(grown, "step-00000010 step-00000008 step-00000006 step-00000004")),
    )


def _growing(asked: str) -> tuple[str, tuple[str, ...]]:
    """The name of a growth and the line that makes it, unproven."""
    return asked, (f"{asked} --no-verify -o out",)


def _deltas(family: str) -> Iterator[str]:
    yield f"delta {family} {family}-a --json"
    yield f"delta {family} {family}-a"
    for name, options in (("whole", ""), ("thin", " --drop 0.9 --seed 2 --json"), ("lora", " --rank 4 --json")):
        yield f"delta {family} {family}-a --save {name}{options}"
    yield f"apply {family} whole -o with-whole"
    yield f"apply {family} thin:2 whole --shard-size 20KB -o with-both --json"
    yield f"apply {family} lora:0.5 -o with-lora"


def _resumed(line: str, gone: str = "step-00000008") -> Iterator[str]:
    """A run, what it left undone to a point, and the run from there on."""
    yield line
    yield "rm run/final"
    yield from (f"rm run/checkpoints/{step}" for step in gone.split())
    yield f"{line} --resume auto"
    yield line
