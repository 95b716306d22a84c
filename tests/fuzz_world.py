"""Sound inputs of every kind, small, and the commands that read them: what fuzzing begins with."""

import gzip
import json
import shutil
from pathlib import Path

import tiny
import torch
from chats import FOLDER
from piloting import grown_from, pilots
from refusing import run
from texts import EXCERPT, TOKENIZERS, wrap

SMALL = dict(vocab_size=512, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
LLAMA = dict(SMALL, num_key_value_heads=1, max_position_embeddings=64, attention_bias=False, mlp_bias=False)
TRAIN = "--data data --seq-len 16 --batch-size 2 --eval-tokens 64 --eval-every 2 --save-every 2 --out"
STAGES = '[[stage]]\nname = "first"\nsteps = 2\nsub_layers = 1\nlr = 0.5\n\n[[stage]]\nsteps = 2\nlayers = 4\ndepth = "top"\n'
SIZES = """init = "src"
steps = 2
seq_len = 16
batch_size = 2
eval_tokens = 64
eval_every = 2
save_every = 2

[[size]]
name = "small"

[[size]]
name = "medium"
hidden = 32
lr = 1e-4
teacher_weight = 0.5

[[size]]
name = "large"
layers = 4
depth = "interleave"
teacher = "none"
seed = 7
"""
PLUGGED = "skill plug src --gated --text text.jsonl --text general.txt --alpha 0.1"
RECIPE = """merge_method: task_arithmetic
base_model: src
models:
  - model: tuned
    parameters:
      weight: [0, 0.5, 1]
parameters:
  normalize: false
dtype: float32
"""


HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"place": "here"}'}}
CHATS = [
    {"messages": [{"role": "system", "content": "Be kind."}, HI, HELLO, HI, {**HELLO, "weight": 0}, HI, HELLO]},
    {
        "messages": [HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "x"}, HELLO],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    },
    *[{"prompt": "Hi", "completion": [HELLO]}, {"instruction": "Hi", "input": "there", "output": "Hello."}] * 2,
]


def make_world(folder: Path) -> None:
    """Models, deltas, adapters, datasets, texts and runs, made in the current folder, which is `folder`."""
    for seed, name in enumerate(("src", "tuned")):
        model = tiny.make("llama", dtype=torch.float32, seed=seed, **LLAMA)
        model.save_pretrained(name, max_shard_size="20kB" if name == "tuned" else "5GB")
        wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>").save_pretrained(name)
    tiny.make("bert", "BertModel", dtype=torch.float32, **SMALL).save_pretrained("st")
    wrap(TOKENIZERS["bert"], sep_token="[SEP]", mask_token="[MASK]", unk_token="[UNK]").save_pretrained("st")
    put(
        "st/modules.json",
        [module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2", "Normalize")],
    )
    put("st/sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    put("st/1_Pooling/config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    tiny.make("bert", dtype=torch.float32, **SMALL).save_pretrained("bert")
    text = EXCERPT.read_text("utf-8")
    Path("text.txt").write_text(text[:1500], "utf-8")
    lines = "".join(json.dumps({"text": text[at : at + 200]}) + "\n" for at in range(0, 2000, 200))
    Path("text.jsonl").write_text(lines)
    Path("general.txt").write_text("".join(f"{n} of {n} things. " for n in range(400)))
    Path("text.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet(Path("text.parquet"), [text[at : at + 200] for at in range(0, 1000, 200)])
    Path("stages.toml").write_text(STAGES)
    Path("sizes.toml").write_text(SIZES)
    Path("recipe.yml").write_text(RECIPE)
    must("tokenize text.jsonl --tokenizer src --val-fraction 0.3 --workers 1 -o data")
    must("tokenize a=text.jsonl b=text.jsonl.gz --tokenizer src --val-fraction 0.3 --workers 1 -o tagged")
    Path("chat.jsonl").write_text("".join(json.dumps(one) + "\n" for one in CHATS))
    Path("chat.jinja").write_text((FOLDER / "qwen.jinja").read_text("utf-8"))
    must("tokenize chat.jsonl --chat --template chat.jinja --tokenizer src --val-fraction 0.3 -o talks")
    must("widen src --hidden 32 -o wide")
    must("delta src tuned --save delta --drop 0.5")
    must("delta src tuned --save lora --rank 2")
    must(f"pretrain src {TRAIN} run --steps 4")
    must("teach src --data data --seq-len 16 -o store")
    for word in ("ia3", "molora:2:2"):
        must(f"tune src {TRAIN} {word.split(':')[0]} --steps 2 --train {word}")
    must("panel src --rank 4 --text text.txt --seq-len 16 --tokens 64 -o panel")
    must(f"skill learn src panel {TRAIN} skill --steps 2 --size 2 --adapter 1")
    must(f"skill apply-layer src skill/final {TRAIN} use --steps 2")
    must(f"{PLUGGED} added=lora --own added=text.jsonl -o bundle")
    shutil.copytree("store", "half")
    Path("half/store.json").rename("half/store.unfinished.json")
    Path("half/done-0.bin").write_bytes(bytes(8))
    for copy in ("run2", "stopped"):
        shutil.copytree("run", copy)
    for done in ("stopped/final", "stopped/checkpoints/step-00000004"):
        shutil.rmtree(done)
    metrics = Path("stopped/metrics.jsonl").read_text().splitlines()
    early = [line for line in metrics if json.loads(line).get("step", 0) <= 2]
    Path("stopped/metrics.jsonl").write_text("\n".join(early) + "\n")
    run_json = Path("stopped/run.json")
    run_json.write_text(run_json.read_text().replace('"out": "run"', '"out": "stopped"'))

    pilots()
    shutil.copytree("src", "large")
    put("large/growkit.json", grown_from(200))
    for name in ("scratch", "early", "late"):
        shutil.copy("src/config.json", f"{name}/final/config.json")
    must("forecast scratch early late -o ahead")


def must(line: str) -> None:
    """A command that has to work."""
    result = run(*line.split())
    assert result.exit_code == 0, (line, result.output, result.exception)


def put(name: str, content) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(json.dumps(content))


def module(number: int, path: str, kind: str) -> dict:
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def parquet(path: Path, texts: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)


GROW = ["widen {} --hidden 32 --dry-run", "widen {} --hidden 32 -o out", "stack {} --layers 4 -o out --no-verify"]
GROW += [
    "inspect {}",
    "grow {} --like wide --dry-run",
    "fuse {} src -o out",
    "upcycle {} --experts 2 -o out --no-verify",
    "push {} org/name --dry-run",
]
RUN = [
    "init {} -o out",
    "eval {} --data text.txt",
    "verify {} src",
    "verify wide {}",
    f"pretrain {{}} {TRAIN} out --steps 2",
]
MERGE = [
    "merge {} tuned --base src -o out",
    "merge tuned --base {} -o out --method ties",
    "delta {} tuned",
    "delta src {}",
]
MERGE += [
    "merge {} tuned --method slerp -o out",
    "merge tuned --base {} --vocab tokens --dry-run",
    "apply {} lora -o out",
]
APPLY = [
    "apply src {} -o out",
    "merge src+{} tuned --base src --dry-run",
    "apply src {}:0.5 --dry-run",
    "delta src src+{}",
    "push {} org/name --dry-run",
]
CHECKED = ["skill check panel a={} b=skill/final:0 --base src --data a=text.txt --data b=text.txt --tokens 64"]
PUT_ON = [
    "generate src Hello --max-tokens 2 --adapter {}",
    "eval src --data text.txt --adapter {}",
    "verify src --adapter {}",
]
ON_FINAL = [line.replace("{}", "{}/final") for line in [APPLY[0], *PUT_ON]]
TOKENS = [
    "eval src --data data",
    f"pretrain src {TRAIN} out --steps 2 --dry-run",
    f"pretrain src {TRAIN} out --steps 1",
    "push data org/name --dry-run",
]
TAGGED = [line.replace("--data data", "--data tagged").replace("push data", "push tagged") for line in TOKENS]
TAGGED += [f"{TAGGED[2]} --teacher a=src --teacher b=tuned --teacher-until steps"]
TEXT = ["tokenize {} --tokenizer src --workers 1 -o out", "eval src --data {}", "verify src wide --text {}"]
TRAINED = ["report {} run2 -o out", "report run2 {} -o out", "report run2 -o out --source {}"]

LEARNED = f"skill learn src panel {TRAIN} out --steps 1 --size 2"
TUNED = f"tune src {TRAIN} out --steps 1".replace("--data data --seq-len 16", "--data talks --seq-len 64")
# kind -> [(file that is mutated, the command lines that read it)]; {} stands for its folder, or for itself where it has
# none
READ = {
    "config": [("src/config.json", GROW + RUN + MERGE), ("st/config.json", GROW[:2] + ["inspect {}", "init {} -o out"])],
    "index": [("tuned/model.safetensors.index.json", [GROW[1], "inspect {}", "verify {} tuned", "delta src {}"])],
    "header": [("src/model.safetensors", GROW + RUN[1:] + MERGE), ("st/model.safetensors", GROW[:2] + ["verify {} st"])],
    "delta": [("delta/delta.safetensors", APPLY), ("delta/growkit.json", APPLY)],
    "lora": [("lora/adapter_config.json", APPLY + CHECKED), ("lora/adapter_model.safetensors", APPLY + CHECKED)],
    "ia3": [(f"ia3/final/{name}", ON_FINAL) for name in ("adapter_config.json", "adapter_model.safetensors", "growkit.json")],
    "mixture": [(f"molora/final/{name}", ON_FINAL[1:]) for name in ("small_module.json", "small_module.safetensors")],
    "tokens": [(f"data/{name}", TOKENS) for name in ("meta.json", "train.bin", "train.idx.npy", "val.bin", "val.idx.npy")],
    "domains": [(f"tagged/{name}", TAGGED) for name in ("train.domains", "val.domains", "train.idx.npy", "meta.json")],
    "text": [(f"text.{end}", TEXT) for end in ("txt", "jsonl")] + [(f"text.{end}", TEXT[:2]) for end in ("jsonl.gz", "parquet")],
    "chat": [
        ("chat.jsonl", ["tokenize {} --chat --template chat.jinja --tokenizer src -o out"]),
        ("chat.jinja", ["tokenize chat.jsonl --chat --template {} --tokenizer src -o out"]),
    ],
    "talks": [
        (f"talks/{name}", ["eval src --data talks", "push talks org/name --dry-run", TUNED])
        for name in ("meta.json", "val.bin", "val.idx.npy", "val.learned", "chat_template.jinja")
    ],
    "tokenizer": [
        (f"src/{name}", ["tokenize text.txt --tokenizer {} --workers 1 -o out", "generate {} Hello --max-tokens 4", RUN[1], RUN[3] + " --text text.txt", MERGE[5]])
        for name in ("tokenizer.json", "tokenizer_config.json")
    ],
    "bundle": [(f"bundle/{name}", ["generate {} Hello --max-tokens 2", "eval src --data text.txt --adapter {}"])
        for name in ("certificate.json", "gate.safetensors", "skills/added/adapter_config.json")]
        + [(f"skill/final/{name}", [f"{PLUGGED} {{}}/final -o out"]) for name in ("gate.json", "gate.safetensors")],
    "skill": [
        (f"skill/final/{name}", [f"{LEARNED} --protect {{}}/final", f"{LEARNED} --protect general --protect {{}}/final --dry-run",
            "skill check panel a={}/final b=skill/final:0 --json", "skill plug src {}/final:0.5 -o out", "skill dial src {}/final --data a=text.txt --points 2 --limit 16",
            "skill plug src {}/final --as lora -o out", f"skill apply-layer src {{}}/final {TRAIN} out --steps 1"])
        for name in ("skill.json", "skill.safetensors")
    ] + [
        (f"{folder}/{name}", [f"skill carry src {{}}{end} wide -o out"])
        for folder, end, names in (("skill/final", "/final", ("skill.json", "skill.safetensors")), ("lora", "", ("adapter_config.json", "adapter_model.safetensors")))
        for name in names
    ] + [
        (f"use/final/{name}", ["skill plug src {}/final -o out", "eval src --data text.txt --adapter {}/final"])
        for name in ("application.json", "application.safetensors", "adapter_model.safetensors")
    ],
    "stages": [("stages.toml", [f"pretrain src {TRAIN} out --stages {{}} --dry-run", f"pretrain src {TRAIN} out --stages {{}}"])],
    "sizes": [("sizes.toml", ["chain {} --data data --out out --dry-run", "chain {} --data data --out out --alone"])],
    "recipe": [("recipe.yml", ["merge --recipe {} --dry-run", "merge --recipe {} -o out"])],
    "sentence": [
        (f"st/{name}", ["widen {} --hidden 32 -o out", "fuse {} st -o out", "inspect {}"])
        for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")
    ],
    "generation": [("src/generation_config.json", ["generate {} Hello --max-tokens 4", RUN[1], RUN[4], GROW[1], MERGE[0], "verify {} wide"])],
    "provenance": [("wide/growkit.json", ["verify src {}", "inspect {}", "widen {} --hidden 48 -o out", "verify {} src",
        "skill carry src skill/final {} -o out"])],
    "card": [("wide/README.md", ["widen {} --hidden 48 -o out", "merge {} --base wide -o out", "delta wide {}"])],
    "run": [(f"run/{name}", TRAINED) for name in ("metrics.jsonl", "run.json")],
    "forecast": [(f"early/{name}", ["forecast scratch {} late -o out", "forecast scratch early late -o out --source {}"])
        for name in ("metrics.jsonl", "run.json", "final/growkit.json", "final/config.json")]
        + [("ahead/report.json", [f"pretrain large {TRAIN} out --steps 2 --dry-run --forecast {{}}"])],
    "resume": [
        (f"stopped/{name}", [f"pretrain src {TRAIN} stopped --steps 4 --resume auto", "report stopped run2 -o out"])
        for name in ("metrics.jsonl", "run.json", "checkpoints/step-00000002/trainer.json")
        + ("checkpoints/step-00000002/plan.json", "checkpoints/step-00000002/part-00001-of-00001.safetensors")
    ],
    "store": [(f"store/{name}", [f"pretrain src {TRAIN} out --steps 2 --teacher {{}} --teacher-until overtaken --eval-every 1"])
        for name in ("store.json", "train.words", "val.nats")]
        + [(f"half/{name}", ["teach src --data data --seq-len 16 -o half --resume auto"])
        for name in ("store.unfinished.json", "done-0.bin", "train.words")],
    "panel": [(f"panel/{name}", ["panel show {}", "panel show {} --base src --text text.txt --tokens 64"]
            + [f"skill learn src {{}} {TRAIN} out --steps 2 --size 2 --adapter 1"])
        for name in ("panel.json", "panel.safetensors")],
    "moments": [
        ("run/final/lr_multipliers.json", [f"pretrain run/final {TRAIN} out --steps 2", "widen run/final --hidden 32 -o out --no-verify"]),
        ("run/final/optimizer/optimizer.safetensors", ["widen run/final --hidden 32 -o out --no-verify", f"pretrain run/final {TRAIN} out --steps 2"]
            + ["stack run/final --layers 4 --optimizer {}/final/optimizer/optimizer.safetensors --dry-run"]),
    ],
}  # fmt: skip

# a sound line of each command, to which options are added
LINES = {
    "widen": "widen src --dry-run --hidden 32",
    "stack": "stack src --dry-run --layers 4",
    "grow": "grow src --dry-run --hidden 32 --layers 4",
    "fuse": "fuse src wide --dry-run",
    "upcycle": "upcycle src --dry-run --experts 4",
    "merge": "merge tuned --base src --dry-run",
    "delta": "delta src tuned",
    "apply": "apply src delta --dry-run",
    "verify": "verify src wide",
    "inspect": "inspect src",
    "tokenize": "tokenize text.txt --tokenizer src --workers 1 -o out",
    "init": "init src -o out",
    "eval": "eval src --data data",
    "teach": "teach src --data data --seq-len 16 -o out",
    "generate": "generate src Hello --max-tokens 4",
    "pretrain": f"pretrain src {TRAIN} out --steps 2 --dry-run",
    "tune": f"tune src {TRAIN} out --steps 2 --train top:1 --dry-run",
    "skill learn": f"skill learn src panel {TRAIN} out --steps 2 --size 2 --dry-run",
    "skill carry": "skill carry src skill/final wide -o out",
    "skill dial": "skill dial src skill/final --data text=text.txt --points 3 --limit 32",
    "skill apply-layer": f"skill apply-layer src skill/final {TRAIN} out --steps 2 --dry-run",
    "skill plug": f"{PLUGGED} lora --own lora=text.jsonl -o out",
    "report": "report run -o out",
    "forecast": "forecast scratch early late -o out",
    "chain": "chain sizes.toml --data data --out out --dry-run",
    "skill check": "skill check panel a=skill/final b=skill/final:0",
    "panel": "panel src --rank 4 --text text.txt --seq-len 16 --tokens 64 -o out",
    "panel show": "panel show panel --base src --text text.txt --tokens 64",
    "push": "push src org/name --dry-run",
}
