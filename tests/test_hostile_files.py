"""Small files that somebody spoiled: each command that reads one says in a sentence what is wrong, and leaves nothing.

Each line of the table: the file, what becomes of it (text, bytes, changes of its keys, or a function), the command, and
a part of the sentence.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import tiny_runs
import torch
from refusing import refused, run
from safetensors.torch import load_file, save_file

HUGE, NAN, DEEP = '{"%s": 1' + "0" * 400 + "}", float("nan"), "[" * 3000 + "]" * 3000
TRAIN = "pretrain llama --data data --out out --seq-len 16 --batch-size 2 --eval-tokens 64"
STAGED, STEPS = f"{TRAIN} --stages stages.toml", f"{TRAIN} --steps 2"
MEASURE, TOKENIZE = "eval llama --data data", "tokenize text.txt --tokenizer llama -o out --workers 1"
WIDEN, VERIFY, REPORT = "widen llama --hidden 48 -o out", "verify llama llama --text text.txt", "report run --out out"
APPLY, SENTENCE = "apply llama sparse -o out", "widen st --hidden 48 -o out"
CONFIG, META, LINES, RECORD = "llama/config.json", "data/meta.json", "run/metrics.jsonl", "wide/growkit.json"
VAL = {"kind": "val", "step": 1, "loss": 4.0, "flops": 1e9, "elapsed_s": 1.0}


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def tensors(change):
    def spoil(path: Path) -> None:
        content = load_file(path)
        change(content)
        save_file(content, path, metadata={"format": "pt"})

    return spoil


def ends(value):
    """Of the first matrix of a sparse delta: how many values there are up to its last row."""

    def change(content):
        name = next(name for name in content if name.endswith(".row_ends"))
        content[name][-1] = value

    return tensors(change)


def token_of(number):
    def spoil(path: Path) -> None:
        content = json.loads(path.read_text())
        content["model"]["vocab"]["w5"] = number
        path.write_text(json.dumps(content))

    return spoil


def unknown_to_nobody(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["model"]["vocab"]["[UNK]"]
    path.write_text(json.dumps(content))


def line(**changes) -> str:
    return json.dumps({**VAL, **changes}) + "\n"


TABLE = [
    (CONFIG, {"architectures": 5}, MEASURE, "should have architectures as a list"),
    (CONFIG, {"max_position_embeddings": "64"}, WIDEN, "should have max_position_embeddings as a whole number"),
    (CONFIG, {"vocab_size": KeyError}, WIDEN, "vocab"),
    (CONFIG, {"num_hidden_layers": -1}, WIDEN, "should have num_hidden_layers as a whole number from 1"),
    (CONFIG, {"num_hidden_layers": 10**30}, "inspect llama", "num_hidden_layers as a whole number from 1 to 10000"),
    (CONFIG, {"num_hidden_layers": 10**9}, "init llama -o out", "num_hidden_layers as a whole number from 1 to 10000"),
    (CONFIG, {"eos_token_id": {}}, VERIFY, "should have eos_token_id as a whole number"),
    (CONFIG, {"tie_word_embeddings": "false"}, WIDEN, "should have tie_word_embeddings as true or false"),
    (CONFIG, {"attention_dropout": 5}, STEPS, "should have attention_dropout as a finite number from 0 to 1"),
    (CONFIG, {"rms_norm_eps": NAN}, "merge llama tuned -o out --method average", "rms_norm_eps as a finite number"),
    (CONFIG, {"some_scale": [1.0, NAN]}, WIDEN, "should have some_scale without NaN"),
    (CONFIG, {"use_cache": "\ud800"}, WIDEN, "half a character"),
    (CONFIG, {"hidden_size": "x" * 9000}, WIDEN, "hidden_size"),
    (CONFIG, HUGE % "vocab_size", WIDEN, "a number of 401 digits"),
    (CONFIG, '{"a": ' + DEEP + "}", WIDEN, "nested more than"),
    (CONFIG, "", STEPS, "no valid JSON"),
    (CONFIG, b"\xff\xfe\x00", MEASURE, "no valid JSON ('utf-8' codec"),
    (CONFIG, pipe, WIDEN, "config.json' is a pipe and no file"),
    (CONFIG, device, "init llama -o out", "config.json"),
    ("llama/model.safetensors", tensors(dict.clear), MEASURE, "'llama' holds no tensors"),
    ("llama/model.safetensors", pipe, WIDEN, "model.safetensors' is a pipe and no file"),
    ("llama/generation_config.json", "[" * 9, STEPS, "generation_config.json"),
    (META, {"splits": {"train": {"tokens": "many"}}}, STEPS, "should have splits.'train'.tokens as a whole number"),
    (META, {"splits": 5}, MEASURE, "should have splits as an object"),
    (META, {"dtype": ["uint16"]}, STEPS, "should have dtype as one of uint16, uint32"),
    (META, {"tokenizer": 5}, STEPS, "should have tokenizer as text"),
    (META, HUGE % "format", MEASURE, "a number of 401 digits"),
    (META, pipe, MEASURE, "meta.json' is a pipe and no file"),
    ("data/val.bin", b"\xff\xff" * 250, MEASURE, "holds token 65535, and the embedding of 'llama' has 61 rows"),
    ("data/train.bin", pipe, STEPS, "train.bin' is a pipe and no file"),
    ("stages.toml", "[[stage]]\nsteps = 1" + "0" * 30, STAGED, "stage 1 should have steps as a whole number from 1 to"),
    ("stages.toml", "[[stage]]\nsteps = 1\nname = 1979-05-27", STAGED, "stage 1 should have name as text"),
    ("stages.toml", "[[stage]]\nsteps = 1\nlr = nan", STAGED, "stage 1 should have lr as a finite number"),
    ("stages.toml", "stage = [5]", STAGED, "should have stage[0] as an object"),
    ("stages.toml", "stage = " + DEEP, STAGED, "nested too deep"),
    ("stages.toml", b"\x80", STAGED, "cannot read stages from"),
    ("stages.toml", pipe, STAGED, "stages.toml' is a pipe and no file"),
    (LINES, line(loss=NAN), REPORT, "line 1 of 'run/metrics.jsonl' should have loss as a finite number"),
    (LINES, line().replace("4.0", "1" + "0" * 400), REPORT, "line 1 of 'run/metrics.jsonl' is no valid JSON"),
    (LINES, line(flops="many"), REPORT, "should have flops as a finite number from 0"),
    (LINES, line() + '{"kind": "val", "step": 2}', REPORT, "line 2 of 'run/metrics.jsonl' lacks 'loss'"),
    (LINES, line(expert_load=5, router_entropy=[1.0]), REPORT, "should have expert_load as a list"),
    (LINES, line(expert_load=[[1.0]], router_entropy=[1.0]), REPORT, "expert_load[0] as a list of at least 2"),
    (LINES, line(expert_domains={"nats": [1.0]}), REPORT, "should have expert_domains as an object with layers"),
    (LINES, line(expert_domains={"layers": [0], "nats": [NAN], "most": 1.0}), REPORT, "expert_domains.nats[0] as a"),
    (LINES, line(kind=5), REPORT, "should have kind as text"),
    (LINES, pipe, REPORT, "metrics.jsonl"),
    ("run/run.json", '{"settings": 5}', REPORT, "should have settings as an object"),
    ("run/run.json", '{"settings": {"steps": "all"}}', REPORT, "should have settings.steps as a whole number"),
    ("st/modules.json", "5", SENTENCE, "is no list of modules"),
    ("st/modules.json", '[{"type": 5, "path": {}}]', SENTENCE, "is no list of modules"),
    ("st/1_Pooling/config.json", "[]", SENTENCE, "should hold a JSON object"),
    (RECORD, {"maps": {"hidden": {"old": 4 * 10**8, "new": 48, "name": "x", "runs": []}}}, "verify st wide", "sizes"),
    (RECORD, {"maps": {"hidden": {"old": 24, "new": True, "name": "x", "runs": []}}}, "verify st wide", "sizes"),
    ("llama/tokenizer.json", token_of(2**31), TOKENIZE, "token 'w5' has the id 2147483648"),
    ("llama/tokenizer.json", token_of("x"), TOKENIZE, "does not load"),
    ("llama/tokenizer.json", unknown_to_nobody, "eval llama --data text.txt", "the tokenizer cannot encode this text"),
    ("llama/tokenizer.json", unknown_to_nobody, TOKENIZE, "the tokenizer cannot encode this text"),
    ("text.txt", pipe, TOKENIZE, "text.txt' is a pipe and no file"),
    ("text.txt", pipe, "eval llama --data text.txt", "text.txt' is a pipe and no file"),
    ("text.txt", b"\xff\xfe", VERIFY, "cannot read text from 'text.txt'"),
    ("sparse/delta.safetensors", ends(10**9), APPLY, "row_ends' of"),
    ("sparse/delta.safetensors", ends(-1), APPLY, "row_ends' of"),
    ("sparse/delta.safetensors", tensors(lambda t: t.update(x=torch.ones(3))), APPLY, "of ''"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Everything that a command of the table reads, sound."""
    folder, here = tmp_path_factory.mktemp("world"), os.getcwd()
    os.chdir(folder)
    model = tiny.make("llama", dtype=torch.float32, attention_bias=False, mlp_bias=False)
    model.save_pretrained("llama")
    tiny.shake(model, 1).save_pretrained("tuned")
    tiny_runs.tokenizer().save_pretrained("llama")
    tiny_runs.dataset(Path("data"), 2000)
    tiny.make("bert", "BertModel", dtype=torch.float32).save_pretrained("st")
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    Path("st/modules.json").write_text(json.dumps(modules))
    Path("st/1_Pooling").mkdir()
    Path("st/1_Pooling/config.json").write_text("{}")
    Path("text.txt").write_text("w4 w5 w6 and what it does not know " * 200)
    Path("stages.toml").write_text("[[stage]]\nsteps = 2\n")
    Path("run").mkdir()
    Path(LINES).write_text(line())
    Path("run/run.json").write_text('{"settings": {}}')
    for made in ("delta llama tuned --save sparse --drop 0.9", "widen st --hidden 36 -o wide --no-verify"):
        result = run(*made.split())
        assert result.exit_code == 0, result.output
    os.chdir(here)
    return folder


@pytest.mark.parametrize(
    "file, becomes, command, says", TABLE, ids=[f"{number}-{row[0]}" for number, row in enumerate(TABLE)]
)
def test_a_spoilt_file_is_refused_in_a_sentence(world, tmp_path, monkeypatch, file, becomes, command, says):
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    path = Path(file)
    if callable(becomes):
        becomes(path)
    elif isinstance(becomes, dict):
        content = {**json.loads(path.read_text()), **becomes}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not KeyError}))
    else:
        path.write_bytes(becomes if isinstance(becomes, bytes) else becomes.encode())
    said = refused(*command.split(), says=says, plan_shown=command == APPLY)
    assert len(said) < 2000
