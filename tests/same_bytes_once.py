"""What same_bytes.py asks once, of one family or another: names, and the lines of each."""

COMMANDS = ("widen", "stack", "grow", "fuse", "upcycle", "merge", "delta", "apply", "verify", "inspect") + (
    "tokenize", "init", "eval", "pretrain", "report",
)  # fmt: skip
# What is asked once: a name, and the lines.
LIKE = (("bert", "bert-base"), ("gpt2", "gpt2-medium"), ("roberta", "roberta-large"))
ONCE = {
    **{f"help of {command}": [f"{command} --help"] for command in COMMANDS},
    "help": ["--help"],
    "version": ["--version"],
    "inspect for people": ["inspect llama", "inspect mixtral", "inspect bert"],
    **{
        f"widen {name} {options}": [f"widen {name} {options} --no-verify -o out"]
        for name in (
            "llama-tied",
            "gpt2-tied",
            "gpt2-untied",
            "bert-untied",
            "llama-body",
            "bert-body",
            "gpt2-body",
            "llama-classes",
            "bert-classes",
            "llama-half",
            "llama-double",
            "llama-shards",
            "llama-plain",
            "qwen2-windows",
            "sentences",
        )
        for options in ("--hidden 48", "--hidden 36")
    },
    "stack of layers with windows": ["stack qwen2-windows --layers 6 --no-verify -o out"],
    "stack of two sizes": ["stack llama llama-wide --no-verify -o out", "stack llama llama-wide --dry-run --json"],
    "fuse of two dtypes": ["fuse llama-half llama --no-verify -o out"],
    "fuse of sentence models": [
        f"fuse sentences sentences-2 --mode {m} --no-verify -o {m}" for m in ("side-by-side", "aki")
    ],
    "stack of sentence models": ["stack sentences sentences-2 --no-verify -o out"],
    "default names": [
        "widen llama --hidden 48 --no-verify",
        "widen llama --heads 8 --kv-heads 4 --head-dim 12 --no-verify",
        "widen llama --hidden 48 --ffn 100 --method aki --no-verify",
        "stack llama --layers 6 --no-verify",
        "stack llama --method identity --every 1 --no-verify",
        "grow llama --hidden 48 --layers 6 --no-verify",
        "fuse llama llama-2 --no-verify",
        "stack llama llama-2 --no-verify",
        "upcycle mistral --experts 4 --no-verify",
        "merge llama-a llama-b --base llama",
        "delta llama llama-a --save skill",
        "apply llama skill",
    ],
    "a line of growths": [
        "widen bert --hidden 48 --no-verify",
        "stack --layers 6 --no-verify",
        "stack --method identity --every 3 --no-verify",
        "inspect bert-h48-l6 --json",
        "grow bert-h48-l6 --ffn 200 --layers 8 --no-verify -o last",
    ],
    "a mixture grows on": [
        "upcycle qwen3 --experts 4 --layers 2nd --no-verify -o m",
        "grow m --hidden 36 --layers 5 --no-verify -o out",
    ],
    "force": ["widen llama --hidden 48 --no-verify -o out", "widen llama --hidden 36 --no-verify -o out --force"],
    "widen of a bare file": [
        "widen llama-bare.safetensors --family llama --source-heads 4 --hidden 48 --no-verify",
        "widen bert-bare.safetensors --family bert --source-heads 4 --hidden 36 --no-verify",
        "inspect bert-bare.safetensors --family bert --source-heads 4 --json",
    ],
    "nan that is allowed": ["widen nan --hidden 48 --no-verify --allow-nonfinite -o out"],
    "grow like names": [f"grow {f} --like {n} --dry-run --json" for f, n in LIKE],
    "upcycle at clusters": ["upcycle mistral-words --experts 4 --router clusters --text short.txt --no-verify -o out"],
    "upcycle with windows": ["upcycle qwen2-windows --experts 4 --no-verify -o out"],
    "upcycle of a bare file": ["upcycle plain-bare.safetensors --family llama --source-heads 4 --no-verify -o out"],
    "merge of three": ["merge llama-a:0.5 llama-b:-0.25 llama-2 --base llama --method ties -o out"],
    "merge of vocabularies": [
        "merge llama-wordy --base llama --vocab base -o by-number",
        "merge worded-more --base worded --vocab tokens -o by-word",
    ],
    "merge of slerp on deltas": ["merge llama-a llama-b:3 --base llama --method slerp -o out"],
    "merge of means": [
        "merge llama-a llama-b:3 --method average -o out",
        "merge llama-a llama-b --method slerp -o other",
    ],
    "merge of tied models": ["merge gpt2-tied gpt2 --base gpt2-a --method task-arithmetic -o out"],
    "merge of bfloat16": ["merge llama-a --base llama-half -o out"],
}
DATA = "--tokenizer tok --workers 1 -o tokens"
TEXTS = {
    "tokenize": [f"tokenize books {DATA} --json"],
    "tokenize for people": [f"tokenize books {DATA} --val-fraction 0.34"],
    "tokenize lines": [f"tokenize lines.jsonl --text-key body {DATA} --val-fraction 0.25 --seed 4 --json"],
    "tokenize packed lines": [f"tokenize lines.jsonl.gz books/1.txt --text-key body {DATA} --json"],
    "tokenize in two processes": ["tokenize books --tokenizer tok --workers 2 --val-fraction 0.34 -o tokens --json"],
    "tokenize with files that validate": [
        f"tokenize books/[0-3].txt --val books/4.txt --val books/5.txt {DATA} --json"
    ],
    "tokenize with pieces": ["tokenize books --tokenizer bert-words --workers 1 -o tokens --json"],
    "tokenize with a new tokenizer": [
        "tokenize books --train-tokenizer 300 --val-fraction 0.34 --workers 1 -o tokens --json",
        "tokenize short.txt --tokenizer tokens -o b",
    ],
    "eval of text": [
        "eval gpt2-words --data short.txt --context 32 --json",
        "eval bert-words --data short.txt --context 32 --json",
    ],
    "eval of a dataset": [
        f"tokenize books {DATA} --val-fraction 0.34",
        "eval gpt2-words --data tokens --json",
        "eval llama-words --data tokens --stride 16 --split train --limit 500 --json",
        "eval gpt2-words --data tokens --batch-size 3",
    ],
    "eval of bare tokens": ["eval llama --data bare.bin --json", "eval mixtral --data bare.bin --context 16 --json"],
    "init of a file": ["init llama/config.json -o out --dtype bfloat16 --json", "init gpt2-words -o words"],
    "report": ["report run-scratch run-grown run-worse --source run-small --baseline run-scratch -o out --json"],
    "report for people": ["report run-scratch run-grown run-worse -o out"],
    "verify of text": [
        "widen gpt2-words --hidden 48 --no-verify -o out",
        "verify gpt2-words out --text short.txt --json",
    ],
    "verify of members": [
        "fuse llama llama -o out --no-verify",
        "verify llama llama out --json",
        "verify llama llama-2 --json",
    ],
    "verify for people": ["widen bert --hidden 36 --no-verify -o out", "verify bert out", "verify bert bert-2"],
}
TRAIN = (
    "--data data --seq-len 16 --batch-size 4 --lr 0.001 --device cpu --precision float32 --eval-tokens 160"
    " --eval-every 2 --save-every 4 --out run"
)
PLAIN = ("llama", "gpt2", "opt", "gpt_neox", "qwen2_moe", "mixtral", "gemma2")
RUNS = {
    **{f"pretrain {name}": f"{name} --steps 8" for name in PLAIN},
    **{f"pretrain {name}": f"{name} --steps 8" for name in ("bert-masks", "roberta-masks", "distilbert-masks")},
    "pretrain two-stage": "llama --steps 8 --schedule two-stage --sub-layers 1 --sub-steps 5",
    "pretrain stackbert": "llama --steps 10 --schedule stackbert --to-layers 6",
    "pretrain mslt": "gpt2 --steps 10 --schedule mslt --to-layers 5",
    "pretrain stages": "llama --stages stages.toml",
    "pretrain with a teacher": "gpt2 --steps 8 --teacher teacher --teacher-steps 5 --temperature 1.5",
    "pretrain until overtaken": "gpt2 --steps 8 --teacher teacher --teacher-steps 8 --teacher-until overtaken",
    "pretrain masks with a teacher": "bert-masks --steps 6 --teacher teacher-masks --teacher-schedule constant",
    "pretrain a mixture": "qwen3_moe --steps 8 --balance 0.02 --router-z 0.01 --expert-dropout 0.1",
    "pretrain in parts": "llama --steps 8 --grad-accum 2 --clip 0.5 --weight-decay 0.05 --seed 3",
    "pretrain a warm start": "llama-warm --steps 6",
    "pretrain by tokens": "llama --tokens 500 --decay wsd --warmup 2 --final-lr 0.2 --keep 1",
    "pretrain with recomputing": "llama-tied --epochs 0.1 --decay linear --grad-checkpointing --no-compile",
    "pretrain half": "llama-half --steps 6 --decay constant",
}
