"""The commands that same_bytes.py runs, as tables: what is asked of every family, and what is asked once."""

from collections.abc import Iterator

from same_bytes import Case
from same_bytes_refusals import REFUSALS

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
ENCODERS = ("bert", "roberta", "distilbert")
FAMILIES = (
    *ENCODERS, "gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "olmo2", "phi", *MIXTURES,
)  # fmt: skip
COMMANDS = ("widen", "stack", "grow", "fuse", "upcycle", "merge", "delta", "apply", "verify", "inspect") + (
    "tokenize", "init", "eval", "pretrain", "report",
)  # fmt: skip

# For each family F, whose second model is F-2; F.adam.safetensors is AdamW's state. What a family cannot do is refused, and
# the refusal is recorded.
GROWING = {
    "widen F": [
        "--hidden 48", "--hidden 36", "--hidden 60 --mapping random", "--hidden 48 --mapping random --seed 7", "--heads 8",
        "--kv-heads 4", "--head-dim 12", "--head-dim 8", "--ffn 100", "--hidden 48 --ffn 100 --method aki",
        "--hidden 36 --method aki --noise 0.25", "--hidden 48 --noise 0", "--hidden 36 --noise 0", "--hidden 48 --dtype bfloat16",
        "--hidden 36 --dtype float16", "--hidden 48 --shard-size 20KB", "--hidden 48 --optimizer F.adam.safetensors",
        "--hidden 36 --optimizer F.adam.safetensors --noise 0", "--ffn 60 --hidden 48 --heads 8 --seed 3 --json",
        "--hidden 36 --dry-run --json", "--hidden 48 --method aki --dry-run --json",
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
        "--hidden 48 --layers 6", "--hidden 36 --layers 5 --depth identity", "--like F-larger", "--ffn 60 --layers 4 --depth top",
        "--hidden 48 --method aki --layers 6 --depth interleave", "--hidden 48 --slices 1-3,2-3 --optimizer F.adam.safetensors",
        "--like F-larger --depth identity --dtype bfloat16 --shard-size 20KB", "--like F-larger --dry-run --json",
    ],
    "fuse F F-2": [
        "", "--mode fpi", "--mode aki", "--mode fpi --hidden 60", "--mode fpi --hidden 48 --noise 0 --mapping random",
        "--dtype bfloat16 --json", "--optimizer F.adam.safetensors --optimizer F-2.adam.safetensors", "--dry-run --json",
        "--mode aki --dry-run --json",
    ],
    "fuse F F-2 F-a": ["", "--mode aki --hidden 72"],
}  # fmt: skip
MERGES = [
    "--method dare", "--method task-arithmetic", "--method ties", "--method dare-ties", "--method della", "--method breadcrumbs",
    "--method average", "--method slerp", "--method tsv", "--method iso-c",
    "--drop 0.9 --scale 0.7 --seed 3 --drop-vectors --shard-size 20KB", "--method ties --density 0.5 --dtype bfloat16 --json",
    "--dry-run --json",
]  # fmt: skip
DENSE = {"llama": "llama-plain", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3"}
UPCYCLING = [
    "", "--experts 4", "--experts 8 --top-k 4 --granularity 4", "--experts 6 --top-k 4 --granularity 2 --dtype bfloat16",
    "--experts 4 --shared", "--experts 4 --diversity noise", "--experts 4 --diversity drop", "--experts 4 --diversity drop:0.25",
    "--experts 4 --diversity noise:0.3 --seed 5 --shard-size 20KB", "--experts 4 --layers 2nd", "--experts 4 --layers 1,3 --json",
    "--experts 4 --dry-run --json", "--experts 4 --diversity drop --dry-run --json",
]  # fmt: skip
PARTS = [
    "--experts 4",
    "--experts 4 --diversity drop --top-k 1",
    "--experts 8 --granularity 2",
    "--experts 4 --dry-run --json",
]

# What is asked once: a name, and the lines.
ONCE = {
    **{f"help of {command}": [f"{command} --help"] for command in COMMANDS},
    "help": ["--help"],
    "version": ["--version"],
    "inspect for people": ["inspect llama", "inspect mixtral", "inspect bert"],
    **{
        f"widen {name} {options}": [f"widen {name} {options} --no-verify -o out"]
        for name in (
            "llama-tied", "gpt2-tied", "gpt2-untied", "bert-untied", "llama-body", "bert-body", "gpt2-body", "llama-classes",
            "bert-classes", "llama-half", "llama-double", "llama-shards", "llama-plain", "qwen2-windows", "sentences",
        )
        for options in ("--hidden 48", "--hidden 36")
    },
    "stack of layers with windows": ["stack qwen2-windows --layers 6 --no-verify -o out"],
    "stack of two sizes": ["stack llama llama-wide --no-verify -o out", "stack llama llama-wide --dry-run --json"],
    "fuse of two dtypes": ["fuse llama-half llama --no-verify -o out"],
    "fuse of sentence models": [f"fuse sentences sentences-2 --mode {m} --no-verify -o {m}" for m in ("side-by-side", "aki")],
    "stack of sentence models": ["stack sentences sentences-2 --no-verify -o out"],
    "default names": [
        "widen llama --hidden 48 --no-verify", "widen llama --heads 8 --kv-heads 4 --head-dim 12 --no-verify",
        "widen llama --hidden 48 --ffn 100 --method aki --no-verify", "stack llama --layers 6 --no-verify",
        "stack llama --method identity --every 1 --no-verify", "grow llama --hidden 48 --layers 6 --no-verify",
        "fuse llama llama-2 --no-verify", "stack llama llama-2 --no-verify", "upcycle mistral --experts 4 --no-verify",
        "merge llama-a llama-b --base llama", "delta llama llama-a --save skill", "apply llama skill",
    ],
    "a line of growths": [
        "widen bert --hidden 48 --no-verify", "stack --layers 6 --no-verify", "stack --method identity --every 3 --no-verify",
        "inspect bert-h48-l6 --json", "grow bert-h48-l6 --ffn 200 --layers 8 --no-verify -o last",
    ],
    "a mixture grows on": ["upcycle qwen3 --experts 4 --layers 2nd --no-verify -o m", "grow m --hidden 36 --layers 5 --no-verify -o out"],
    "force": ["widen llama --hidden 48 --no-verify -o out", "widen llama --hidden 36 --no-verify -o out --force"],
    "widen of a bare file": [
        "widen llama-bare.safetensors --family llama --source-heads 4 --hidden 48 --no-verify",
        "widen bert-bare.safetensors --family bert --source-heads 4 --hidden 36 --no-verify",
        "inspect bert-bare.safetensors --family bert --source-heads 4 --json",
    ],
    "nan that is allowed": ["widen nan --hidden 48 --no-verify --allow-nonfinite -o out"],
    "grow like names": [f"grow {f} --like {n} --dry-run --json" for f, n in (("bert", "bert-base"), ("gpt2", "gpt2"), ("llama", "bert-base"))],
    "upcycle at clusters": ["upcycle mistral-words --experts 4 --router clusters --text short.txt --no-verify -o out"],
    "upcycle with windows": ["upcycle qwen2-windows --experts 4 --no-verify -o out"],
    "upcycle of a bare file": ["upcycle llama-bare.safetensors --family llama --source-heads 4 --no-verify -o out"],
    "merge of three": ["merge llama-a:0.5 llama-b:-0.25 llama-2 --base llama --method ties -o out"],
    "merge of vocabularies": [f"merge llama-wordy --base llama --vocab {vocab} -o {vocab}" for vocab in ("base", "tokens")],
    "merge of slerp on deltas": ["merge llama-a llama-b:3 --base llama --method slerp -o out"],
    "merge of means": ["merge llama-a llama-b:3 --method average -o out", "merge llama-a llama-b --method slerp -o other"],
    "merge of tied models": ["merge gpt2-tied gpt2 --base gpt2-a --method task-arithmetic -o out"],
    "merge of bfloat16": ["merge llama-a --base llama-half -o out"],
}  # fmt: skip
DATA = "--tokenizer tok --workers 1 -o data"
TEXTS = {
    "tokenize": [f"tokenize books {DATA} --json"],
    "tokenize for people": [f"tokenize books {DATA} --val-fraction 0.34"],
    "tokenize lines": [f"tokenize lines.jsonl --text-key body {DATA} --val-fraction 0.25 --seed 4 --json"],
    "tokenize packed lines": [f"tokenize lines.jsonl.gz books/1.txt --text-key body {DATA} --json"],
    "tokenize in two processes": ["tokenize books --tokenizer tok --workers 2 --val-fraction 0.34 -o data --json"],
    "tokenize with files that validate": [f"tokenize books/[0-3].txt --val books/4.txt --val books/5.txt {DATA} --json"],
    "tokenize with pieces": ["tokenize books --tokenizer bert-words --workers 1 -o data --json"],
    "tokenize with a new tokenizer": [
        "tokenize books --train-tokenizer 300 --val-fraction 0.34 --workers 1 -o data --json", "tokenize short.txt --tokenizer data -o b",
    ],
    "eval of text": ["eval gpt2-words --data short.txt --context 32 --json", "eval bert-words --data short.txt --context 32 --json"],
    "eval of a dataset": [
        f"tokenize books {DATA} --val-fraction 0.34", "eval gpt2-words --data data --json",
        "eval llama-words --data data --stride 16 --split train --limit 500 --json", "eval gpt2-words --data data --batch-size 3",
    ],
    "eval of bare tokens": ["eval llama --data bare.bin --json", "eval mixtral --data bare.bin --context 16 --json"],
    "init of a file": ["init llama/config.json -o out --dtype bfloat16 --json", "init gpt2-words -o words"],
    "report": ["report run-scratch run-grown run-worse --source run-small --baseline run-scratch -o out --json"],
    "report for people": ["report run-scratch run-grown run-worse -o out"],
    "verify of text": ["widen gpt2-words --hidden 48 --no-verify -o out", "verify gpt2-words out --text short.txt --json"],
    "verify of members": ["fuse llama llama -o out --no-verify", "verify llama llama out --json", "verify llama llama-2 --json"],
    "verify for people": ["widen bert --hidden 36 --no-verify -o out", "verify bert out", "verify bert bert-2"],
}  # fmt: skip
TRAIN = "--data data --seq-len 16 --batch-size 4 --lr 0.001 --device cpu --precision float32 --eval-tokens 160 --eval-every 4 --save-every 4"
RUNS = {
    **{f"pretrain {name}": f"{name} --steps 8" for name in ("llama", "gpt2", "opt", "gpt_neox", "qwen2_moe", "mixtral", "gemma2")},
    **{f"pretrain {name}": f"{name} --steps 8" for name in ("bert-masks", "roberta-masks", "distilbert-masks")},
    "pretrain two-stage": "llama --steps 8 --schedule two-stage --sub-layers 1 --sub-steps 5",
    "pretrain stackbert": "llama --steps 10 --schedule stackbert --to-layers 6",
    "pretrain mslt": "gpt2 --steps 10 --schedule mslt --to-layers 5",
    "pretrain stages": "llama --stages stages.toml",
    "pretrain with a teacher": "gpt2 --steps 8 --teacher teacher --teacher-steps 5 --temperature 1.5",
    "pretrain until it is overtaken": "gpt2 --steps 8 --teacher teacher --teacher-steps 8 --teacher-until overtaken --eval-every 2",
    "pretrain masks with a teacher": "bert-masks --steps 6 --teacher teacher-masks --alpha-schedule constant",
    "pretrain a mixture": "qwen3_moe --steps 8 --balance 0.02 --router-z 0.01 --expert-dropout 0.1",
    "pretrain in parts": "llama --steps 8 --grad-accum 2 --clip 0.5 --weight-decay 0.05 --seed 3",
    "pretrain a warm start": "llama-warm --steps 6",
    "pretrain by tokens": "llama --tokens 500 --decay wsd --warmup 2 --final-lr 0.2 --keep 1",
    "pretrain with recomputing": "llama-tied --epochs 0.1 --decay linear --grad-checkpointing --no-compile",
    "pretrain half": "llama-half --steps 6 --decay constant",
}  # fmt: skip


def all_cases() -> Iterator[Case]:
    """Every case, the quick ones first."""
    for family in FAMILIES:
        for command, requests in GROWING.items():
            for request in requests:
                yield Case(*_growing(f"{command} {request}".replace("F", family).strip()))
        for request in MERGES:
            asked = f"merge {family}-a {family}-b:0.5 --base {family} {request}"
            yield Case(asked, (f"{asked} -o out",))
        yield Case(f"delta {family}", tuple(_deltas(family)))
        yield Case(f"inspect {family}", (f"inspect {family} --json",))
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
        yield Case(name, (f"pretrain {asked} {TRAIN} --dry-run --json", f"pretrain {asked} {TRAIN} --out run"))
    yield Case("pretrain resumed", tuple(_resumed(f"pretrain gpt2 --steps 8 {TRAIN} --out run")))
    grown = f"pretrain llama --steps 10 --schedule stackbert --to-layers 6 {TRAIN} --save-every 2 --keep 9 --out run"
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
    yield f"apply {family} thin:2 lora:0.5 --shard-size 20KB -o with-both --json"


def _resumed(line: str, gone: str = "step-00000008") -> Iterator[str]:
    """A run, what it left undone to a point, and the run from there on."""
    yield line
    yield "rm run/final"
    yield from (f"rm run/checkpoints/{step}" for step in gone.split())
    yield f"{line} --resume auto"
    yield line
