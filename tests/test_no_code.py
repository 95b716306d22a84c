"""No code that lies beside a checkpoint is ever run, whoever answers the question that transformers would ask."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from on_disk import edit_config
from texts import EXCERPT, TOKENIZERS, wrap
from typer.testing import CliRunner

import growkit
from growkit.cli import app

PLANTED = "open('RAN', 'w').close()\n"
AUTO = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoModelForCausalLM": "own.OwnForCausalLM"}
OWN_CODE = "needs code of its own (auto_map), which growkit never runs"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    sizes = dict(dtype=torch.float32, vocab_size=512, attention_bias=False, mlp_bias=False)
    tiny.make("llama", **sizes).save_pretrained(folder / "src")
    wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>").save_pretrained(folder / "src")
    (folder / "text.txt").write_text(EXCERPT.read_text("utf-8")[:3000], "utf-8")
    growkit.tokenize(folder / "text.txt", folder / "data", folder / "src")
    return folder


@pytest.fixture
def src(made, tmp_path, monkeypatch):
    """A model with code beside it that transformers would run where it is allowed to."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name in ("own.py", "custom_generate/generate.py"):
        Path("src", name).parent.mkdir(exist_ok=True)
        Path("src", name).write_text(PLANTED)
    edit_config(Path("src"), auto_map=AUTO)
    edit_settings(auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]})
    return Path("src")


def edit_settings(**changes):
    path = Path("src/tokenizer_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def answered(line):
    """A command by somebody who answers every question with yes."""
    result = CliRunner().invoke(app, line.split(), input="y\n" * 9)
    assert not list(Path().rglob("RAN")), "the planted code ran"
    return result


TRAINING = "pretrain src --data data --steps 2 --seq-len 16 --batch-size 2 --eval-tokens 64"
LINES = [
    "tokenize text.txt --tokenizer src -o again",
    "eval src --data text.txt",
    "verify src src --text text.txt",
    "widen src --hidden 48 -o out",
    "upcycle src --router clusters --text text.txt -o out",
    "init src -o new",
    "merge src --base src --method average -o out",
    f"{TRAINING} --out run",
    f"{TRAINING} --out run --dry-run",
]


@pytest.mark.parametrize("line", LINES)
def test_a_stock_model_with_an_entry_for_code_is_stock(src, line):
    result = answered(line)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", LINES[:4] + LINES[7:])
def test_a_kernel_that_a_config_names_is_not_fetched(src, line):
    edit_config(src, attn_implementation="somebody/kernel", experts_implementation="somebody/other")
    result = answered(line)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", [line for line in LINES if line.split()[0] in ("eval", "verify", "init", "pretrain")])
def test_a_class_that_is_none_of_transformers_is_refused(src, line):
    edit_config(src, architectures=["OwnForCausalLM"])
    result = answered(line)
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, result.output
    assert "OwnForCausalLM" in result.stderr and "which transformers does not have" in result.stderr


@pytest.mark.parametrize("line", LINES)
def test_a_model_type_that_is_none_of_transformers_is_refused(src, line):
    edit_config(src, model_type="own", architectures=["OwnForCausalLM"])
    for name in ("tokenizer_class", "auto_map"):
        edit_settings(**{name: None})
    result = answered(line)
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, result.output


@pytest.mark.parametrize("lone", [True, False])
def test_a_tokenizer_that_needs_code_is_refused(src, lone):
    """lone: without a config whose model type would tell transformers of a tokenizer instead."""
    edit_settings(tokenizer_class="OwnTokenizer")
    if lone:
        (src / "config.json").unlink()
    result = answered("tokenize text.txt --tokenizer src -o again")
    assert result.exit_code == 2 and OWN_CODE in result.stderr and "OwnTokenizer" in result.stderr
    edit_settings(tokenizer_class=None)
    if lone:
        result = answered("tokenize text.txt --tokenizer src -o again")
        assert result.exit_code == 2 and OWN_CODE in result.stderr


def test_what_opens_configs_models_and_tokenizers_is_in_three_files():
    """Law: nobody else calls from_pretrained, and where a call could ask for code, it says no."""
    root = Path(growkit.__file__).parent
    calls = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                calls.append((str(path.relative_to(root)), ast.unparse(node.func), said.get("trust_remote_code")))
    peft = {("models/adapters.py", "peft.PeftModel.from_pretrained", None)}  # reads JSON and safetensors, and no code
    memory = {
        ("family_check/small_models.py", "kind.from_pretrained", None)
    }  # of a state in memory: there is no folder
    assert {file for file, _, _ in set(calls) - peft - memory} == {"models/stock.py", "checkpoint/same_tokenizer.py"}
    code = {(name, trust) for _, name, trust in calls if "Auto" in name or name.startswith("model_class.from")}
    assert len(code) == 3 and {trust for _, trust in code} == {"False"}
    assert "True" not in {trust for _, _, trust in calls}


def test_what_lies_in_the_current_folder_is_no_module(tmp_path):
    """Neither the command nor its worker processes take the first module they need from here."""
    modules = "queue json pickle threading struct signal multiprocessing tokenizers numpy selectors random growkit"
    for module in modules.split():
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').close(); raise SystemExit(9)\n")
    (tmp_path / "texts").mkdir()
    for number in range(8):
        (tmp_path / "texts" / f"{number}.txt").write_text(EXCERPT.read_text("utf-8")[:3000], "utf-8")
    line = ["growkit", "tokenize", "texts", "--train-tokenizer", "300", "--out", "data", "--workers", "2"]
    # as the installed command begins: the folder of the command is its first place, not the current one
    program = f"import sys; sys.path.remove(''); sys.argv = {line!r}; from growkit.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(growkit.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "data" / "train.bin").stat().st_size and not (tmp_path / "RAN").exists()
