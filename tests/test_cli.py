"""The command line as people and scripts meet it: help, options, what is printed, what lies in the folder, exit
codes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import transformers
import typer
from on_disk import edit_weights
from refusing import cases, refused, run, tree
from safetensors.torch import load_file
from typer.testing import CliRunner

from growkit import api, errors
from growkit.cli import app
from growkit.cli.app import Program
from growkit.models import verify as proof

COMMANDS = typer.main.get_command(app).commands
COMPANIONS = ("tokenizer.json", "generation_config.json", "chat_template.jinja", "LICENSE")
FAST = ["--hidden", "48", "--no-verify"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "llama")
    tiny.make("bert", dtype=torch.float32).save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def src(models, tmp_path, monkeypatch):
    """A fresh copy of a tiny model as `src` in the current folder, with files beside the weights."""
    monkeypatch.chdir(tmp_path)
    source = Path(shutil.copytree(models / "llama", "src"))
    for name in set(COMPANIONS) - {"generation_config.json"}:
        (source / name).write_bytes(f"{name}\r\n\u00e9 [bold]".encode())
    return source


def modules_of(code):
    """What a fresh interpreter has imported after some code."""
    report = "; import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, timeout=600, check=True
    )
    return set(done.stderr.split())


def test_every_command_and_every_option_has_help():
    training = ["tokenize", "init", "eval", "teach", "pretrain", "tune", "skill learn", "skill apply-layer", "chain"]
    training += [
        "panel",
        "panel show",
        "skill check",
        "skill plug",
        "skill carry",
        "skill dial",
        "generate",
        "report",
        "forecast",
        "push",
    ]
    growing = ["widen", "stack", "grow", "fuse", "upcycle"]
    assert list(COMMANDS) == [*growing, "merge", "delta", "apply", "verify", "inspect", "check-family", *training]
    for name, command in COMMANDS.items():
        assert command.help and run(*name.split(), "--help").exit_code == 0
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"
    assert run("--version").stdout.split()[0] == "growkit" and run("--help").exit_code == 0


def test_a_command_may_have_two_words():
    other = typer.Typer(cls=Program)
    for name in ("panel", "panel show", "skill learn", "skill check"):
        other.command(name)(lambda word, name=name: print(f"{name}: {word}"))
    said = {line: CliRunner().invoke(other, line.split()) for line in ("panel x", "panel show x", "skill check x")}
    assert [result.stdout for result in said.values()] == [f"{line[:-2]}: x\n" for line in said]
    for line in ("skill", "skill plug x"):
        lacking = CliRunner().invoke(other, line.split())
        assert lacking.exit_code == 2 and "skill needs one of learn, check behind it; " in lacking.stderr


def test_nothing_heavy_is_imported_before_it_is_needed(src):
    assert not {"torch", "transformers", "numpy", "rich.progress"} & modules_of("import growkit, growkit.cli")
    shown = "from growkit.cli import app; app(['--help'], standalone_mode=False)"
    assert not {"torch", "transformers"} & modules_of(shown)
    grown = f"from growkit.cli import app; app({['widen', 'src', *FAST, '-o', 'out']}, standalone_mode=False)"
    modules = modules_of(grown)
    assert "torch" in modules and not {"transformers", "huggingface_hub"} & modules and Path("out/config.json").exists()


PLAN = {"format", "command", "sources", "family", "request", "exactness", "axes", "parameters", "bytes", "flops_per_token"} | {
    "peak_memory_bytes", "config", "dropped", "notes", "active_parameters",
}  # fmt: skip
REPORT = {"ok", "source", "target", "compared", "text", "tokens", "exactness", "max_difference", "mean_difference"} | {
    "scale", "relative", "tolerance", "kl", "top1", "loss_source", "loss_target", "cosine", "keys", "members", "notes",
}  # fmt: skip
INSPECTION = {"source", "family", "architecture", "sizes", "parameters", "parameters_total", "dtypes", "bytes", "tied"} | {
    "flops_per_token", "buffers", "growths", "active_parameters",
}  # fmt: skip


def machine(*args, code=0):
    """What a command prints with --json, as strict JSON and nothing beside it."""
    result = run(*args, "--json")
    assert result.exit_code == code and not result.stderr, result.output

    def never(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(result.stdout, parse_constant=never)


def test_dry_run_writes_nothing_and_says_what_would_be(src):
    before = tree()
    plan = machine("widen", "src", "--hidden", "48", "--dry-run")
    shown = run("widen", "src", "--hidden", "48", "--dry-run")
    assert tree() == before and plan.keys() == PLAN
    assert plan["exactness"] == "exact" and plan["config"]["hidden_size"] == 48
    assert plan["parameters"]["before"] == sum(t.numel() for t in load_file(src / "model.safetensors").values())
    assert "Dry run: nothing was written." in shown.stdout and f"{plan['parameters']['after']:,}" in shown.stdout


def test_dry_run_shows_a_new_rotary_base(src):
    assert "rope_parameters" in machine("widen", "src", "--head-dim", "8", "--dry-run")["config"]


def test_json_of_a_growth_its_verification_and_its_inspection(src):
    grown = machine("widen", "src", "--hidden", "48", "-o", "out")
    assert grown.keys() == PLAN | {"folder", "verify", "unverified"} and grown["folder"] == "out"
    assert grown["verify"].keys() == REPORT and grown["verify"]["ok"] and not grown["verify"]["keys"]
    assert grown["bytes"]["after"] == sum(t.nbytes for t in load_file("out/model.safetensors").values())
    alone = machine("verify", "src", "out")
    assert alone == grown["verify"]
    seen = machine("inspect", "out")
    assert seen.keys() == INSPECTION and seen["sizes"]["hidden"] == 48
    assert seen["parameters_total"] == grown["parameters"]["after"] == sum(seen["parameters"].values())
    assert machine("widen", "src", *FAST, "-o", "again")["verify"] is None


def test_verify_exit_codes(src):
    assert run("widen", "src", *FAST, "-o", "out").exit_code == 0
    good = run("verify", "src", "out")
    assert good.exit_code == 0 and "same function" in good.stdout
    assert run("verify", "src", "out", "--tolerance", "0").exit_code == 1
    edit_weights(Path("out"), lambda state: state["model.layers.1.mlp.up_proj.weight"][0, 0].add_(1.0))
    tampered = run("verify", "src", "out")
    assert tampered.exit_code == 1 and "FAILED" in tampered.stdout and not tampered.stderr
    edit_weights(Path("out"), lambda state: state["model.layers.1.mlp.up_proj.weight"].fill_(torch.nan))
    broken = machine("verify", "src", "out", code=1)
    assert not broken["ok"] and broken["max_difference"] is None
    edit_weights(Path("out"), lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))
    assert machine("verify", "src", "out", code=1)["keys"] == ["missing: model.layers.1.mlp.up_proj.weight"]


def test_verify_says_no_loss_of_a_model_that_sees_what_it_should_predict(src):
    tiny.make("gemma3_text", dtype=torch.float32, use_bidirectional_attention=True).save_pretrained("both_ways")
    assert run("widen", "both_ways", "--hidden", "48", *FAST[2:], "-o", "out").exit_code == 0
    found = machine("verify", "both_ways", "out")
    assert found["ok"] and found["loss_source"] is None and found["loss_target"] is None


INCOMPARABLE = [
    (["src", "nosuch"], "'nosuch' does not exist"),
    (["nosuch", "src"], "'nosuch' does not exist"),
    (["src", "src", "--text", "src/LICENSE"], "--text needs the source's tokenizer, which does not load"),
    (["base", "wider"], "hidden states of 48 where the source has 24, and no growkit.json"),
    (["src", "base"], "logits"),
    (["base", "src"], "last_hidden_state"),
    (["src", "small_vocabulary"], "vocabulary"),
]


@pytest.mark.parametrize("args, says", cases(INCOMPARABLE))
def test_verify_refuses_what_cannot_be_compared(src, args, says):
    tiny.make("llama", "LlamaModel", dtype=torch.float32).save_pretrained("base")
    tiny.make("llama", "LlamaModel", dtype=torch.float32, hidden_size=48).save_pretrained("wider")
    tiny.make("llama", dtype=torch.float32, vocab_size=50).save_pretrained("small_vocabulary")
    refused("verify", *args, says=says)


def test_verify_of_a_model_with_fewer_positions(src):
    tiny.make("gpt2", dtype=torch.float32).save_pretrained("long")
    tiny.make("gpt2", dtype=torch.float32, n_positions=16).save_pretrained("short")
    refused("verify", "long", "short", says="16")


RECORDS = [
    ({"maps": []}, "growkit.json holds a map that cannot be read"),
    ({"maps": None}, "growkit.json holds a map that cannot be read"),
    ({"maps": {"hidden": {"old": 24, "new": 36, "name": "x", "runs": [[0, 36]]}}}, "cannot be read"),
    ({"maps": {"hidden": {"old": 24, "new": 36, "name": "x", "runs": [[0, 36, 1, 1, 1]]}}}, "cannot be read"),
    ({"exactness": ["exact"]}, "exactness"),
]


@pytest.mark.parametrize("changes, says", cases(RECORDS))
def test_verify_does_not_believe_a_damaged_record(src, changes, says):
    tiny.make("bert", "BertModel", dtype=torch.float32).save_pretrained("base")
    assert run("widen", "base", "--hidden", "36", "--no-verify", "-o", "out").exit_code == 0
    record = json.loads(Path("out/growkit.json").read_text())
    Path("out/growkit.json").write_text(json.dumps(record | changes))
    refused("verify", "base", "out", says=says)


NAMES = [
    (["src", "--hidden", "48"], "src-h48"),
    (["src/", "--hidden", "48"], "src-h48"),
    (["src/model.safetensors", "--hidden", "48"], "model-h48"),
    (["bare.safetensors", "--hidden", "48", "--source-heads", "4"], "bare-h48"),
    (["src", "--heads", "8", "--kv-heads", "4", "--head-dim", "12"], "src-heads8-kv4-d12"),
    (["src", "--hidden", "48", "--ffn", "100", "--method", "aki"], "src-h48-ffn100-aki"),
]


@pytest.mark.parametrize("args, name", cases(NAMES))
def test_default_name_says_what_changed(src, models, args, name):
    shutil.copyfile(models / "bert" / "model.safetensors", "bare.safetensors")
    result = run("widen", *args, "--no-verify")
    assert result.exit_code == 0 and result.stdout.endswith(f"wrote {name}\n")
    assert sorted(os.listdir()) == sorted(["bare.safetensors", "src", name])


@pytest.fixture
def bare(models, tmp_path, monkeypatch):
    """Files without a config, beside something private."""
    monkeypatch.chdir(tmp_path)
    for name in ("llama", "bert"):
        shutil.copyfile(models / name / "model.safetensors", f"{name}.safetensors")
    Path("private.json").write_text("{}")


BARE = [
    ("llama.safetensors", "which compute differently: say which with --family"),
    (
        "llama.safetensors --family llama",
        "number of attention heads cannot be seen in shapes: give it with --source-heads",
    ),
    ("llama.safetensors --family llama --source-heads 5", "--source-heads 5 does not divide the 24 rows of the query"),
    ("llama.safetensors --family yeti", "model_type 'yeti' is not a family growkit knows; it knows albert"),
    ("bert.safetensors", "number of attention heads cannot be seen in shapes: give it with --source-heads"),
    (
        "bert.safetensors --family gpt2 --source-heads 4",
        "is not one of the gpt2 family's: growkit does not know its axes",
    ),
]


@pytest.mark.parametrize("args, says", cases(BARE))
def test_bare_file_needs_named_what_its_shapes_do_not_tell(bare, args, says):
    refused("widen", *args.split(), *FAST, says=says)
    refused("inspect", *args.split(), says=says)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_bare_file_from_end_to_end(bare, family):
    named = ["--family", family, "--source-heads", "4"]
    grown = run("widen", f"{family}.safetensors", *named, "--hidden", "48")
    assert grown.exit_code == 0 and "same function" in grown.stdout, grown.output
    assert run("verify", f"{family}.safetensors", f"{family}-h48", *named).exit_code == 0
    assert run("inspect", f"{family}.safetensors", *named).exit_code == 0
    written = ["README.md", "config.json", "growkit.json", "model.safetensors"]
    assert sorted(os.listdir(f"{family}-h48")) == written, "what lies beside a bare file need not belong to it"


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_bare_file_grows_into_what_its_model_with_a_config_is(bare, models, family):
    named = ["--family", family, "--source-heads", "4"]
    assert run("widen", f"{family}.safetensors", *named, *FAST, "-o", "out").exit_code == 0
    result = run("verify", models / family, "out")
    assert result.exit_code == 0 and "same function" in result.stdout, result.output


OPTIONS = [
    ("", "nothing to grow: give at least one of --hidden, --heads, --kv-heads, --head-dim, --ffn"),
    ("--hidden 12", "--hidden 12 is smaller than the source's 24; growkit only grows"),
    ("--ffn 39 --hidden 48", "--ffn 39 is smaller than the source's 40"),
    ("--hidden 48 --method magic", "--method 'magic' is not one of fpi, aki"),
    ("--hidden 48 --mapping spiral", "--mapping 'spiral' is not one of cyclic, random"),
    ("--hidden 48 --dtype int8", "--dtype 'int8' is not one of float64, float32, bfloat16, float16"),
    ("--hidden 48 --noise 1", "--noise 1.0 should be from 0"),
    ("--hidden 48 --noise -0.1", "--noise -0.1 should be from 0"),
    ("--hidden 48 --noise nan", "--noise nan should be from 0"),
    ("--hidden 48 --noise some", "--noise some should be from 0 (equal parts) to below 1 (all in one copy), or auto"),
    *((f"--hidden 48 --shard-size={s}", f"--shard-size '{s}' is no size such as") for s in ["5XB", "infGB", "nan", "0", "-1", "0.1"]),
    ("--hidden 48 --optimizer nosuch.safetensors", "'nosuch.safetensors' does not exist"),
]  # fmt: skip


@pytest.mark.parametrize("options, says", cases(OPTIONS))
def test_options_that_cannot_be(src, options, says):
    refused("widen", "src", *options.split(), says=says)


@pytest.mark.parametrize(
    "options", ["--hidden 0", "--hidden x", "--heads -1", "--ffn 1.5", "--seed x", "--noise x", "--bogus 1"]
)
def test_options_that_do_not_parse(src, options):
    before = tree()
    result = run("widen", "src", *options.split())
    assert result.exit_code == 2 and options.split()[0] in result.stderr and "Traceback" not in result.output
    assert tree() == before


def test_a_second_word_is_told_where_the_output_is_named():
    said = run("widen", "src", "dst", "--hidden", "48")
    assert (said.exit_code, said.stdout) == (2, "")
    assert "(dst); what is written is named by --out; growkit widen --help says more" in said.stderr
    assert "--out" not in run("inspect", "src", "dst").stderr


def test_sizes_beyond_all_reason(src):
    refused(
        "widen",
        "src",
        "--hidden",
        24 * 10**30,
        says="--hidden has more than 30 digits; it should be from 1 to 16777216",
    )


SIZES = [
    ("hidden=50", "--hidden 50 in proportion gives 8.33 heads", "--hidden 48 or 60"),
    ("heads=5", "llama needs hidden 24 to be a multiple of its 5 heads", "--heads 4 or 6"),
    ("kv_heads=3", "4 heads are no multiple of 3 kv heads", "--kv-heads 2 or 4"),
    ("heads=6 kv_heads=4", "6 heads are no multiple of 4 kv heads", "--heads 4 or 8"),
    ("head_dim=7", "head_dim 7 is odd, and rotary positions turn slots in pairs", "--head-dim 6 or 8"),
    ("hidden=37 ffn=50", "--hidden 37 in proportion gives 6.17 heads", "--hidden 36 or 48"),
]
FLAGS = {"--hidden": "hidden", "--heads": "heads", "--kv-heads": "kv_heads", "--head-dim": "head_dim", "--ffn": "ffn"}


@pytest.mark.parametrize("request_, says, offer", SIZES)
def test_sizes_that_do_not_divide_and_the_nearest_that_do(src, request_, says, offer):
    asked = {key: int(value) for key, value in (pair.split("=") for pair in request_.split())}
    flags = [part for flag, key in FLAGS.items() if key in asked for part in (flag, asked[key])]
    sentence = refused("widen", "src", *flags, says=says)
    assert sentence.endswith(f"; nearest that work: {offer}")
    flag, *offered = re.findall(r"--[a-z-]+|\d+", offer)
    low, high = sorted(map(int, offered))
    for size in range(low, high + 1):
        request = {**asked, FLAGS[flag]: size}
        if size in (low, high):
            api.widen(src, dry_run=True, **request)
        else:
            with pytest.raises(errors.RequestError):
                api.widen(src, dry_run=True, **request)


def test_folder_holds_everything_a_hugging_face_folder_does(src):
    before = tree("src")
    assert run("widen", "src", *FAST, "-o", "out").exit_code == 0
    written = {"README.md", "config.json", "growkit.json", "model.safetensors"}
    assert set(os.listdir("out")) == written | set(COMPANIONS)
    for name in COMPANIONS:
        assert Path("out", name).read_bytes() == (src / name).read_bytes()
    record = json.loads(Path("out/growkit.json").read_text())
    assert record["sources"] == [{"name": "src", "files": {"model.safetensors": before["src/model.safetensors"]}}]
    assert record["request"]["sizes"] == {"hidden": 48} and record["command"] == "widen"
    assert "| hidden | 24 | 48 | copies | exact |" in Path("out/README.md").read_text()
    assert tree("src") == before


def test_same_command_same_bytes_other_seed_other_bytes(src):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("widen", "src", *FAST, "--seed", seed, "-o", name).exit_code == 0
    a, b, c = (list(tree(name).values()) for name in "abc")
    assert a == b and len(set(a) - set(c)) == 3, "weights, growkit.json and README.md know the seed"


def test_shards_are_the_whole_in_pieces(src):
    assert run("widen", "src", *FAST, "-o", "whole").exit_code == 0
    assert run("widen", "src", *FAST, "-o", "sharded", "--shard-size", "60KB").exit_code == 0
    shards = sorted(Path("sharded").glob("*.safetensors"))
    assert len(shards) > 3 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    joined = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    whole = load_file("whole/model.safetensors")
    assert joined.keys() == whole.keys() and all(torch.equal(joined[name], whole[name]) for name in whole)
    index = json.loads(Path("sharded/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    _, info = transformers.AutoModelForCausalLM.from_pretrained("sharded", output_loading_info=True)
    assert not any(info.values()), info
    assert run("verify", "whole", "sharded").exit_code == 0
    # and a sharded source is as good as a whole one
    assert run("widen", "whole", "--hidden", "96", "--no-verify", "-o", "from_whole").exit_code == 0
    assert run("widen", "sharded", "--hidden", "96", "--no-verify", "-o", "from_shards").exit_code == 0
    files = [Path(name, "model.safetensors") for name in ("from_whole", "from_shards")]
    one, other = map(load_file, files)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_keep_within_the_terminal(src, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    odd = shutil.copytree("src", "odd[bold]:smile:[/]")
    for args in (
        ["widen", odd, *FAST, "-o", "o[red]"],
        ["inspect", odd],
        ["verify", odd, "o[red]"],
        ["widen", "--help"],
    ):
        result = run(*args)
        assert result.exit_code == 0 and max(map(len, result.stdout.splitlines())) <= columns
        assert ("odd[bold]:smile:[/]" in result.stdout) == (args[1] == odd and args[0] != "verify")
    shown = run("widen", odd, "--hidden", "36", "--dry-run").stdout
    assert re.search(r"^hidden +24 +36 +isometric copies +exact", shown, re.MULTILINE)
    assert "copies are scaled so that RMSNorm sees the same mean square" in " ".join(shown.split())


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, errors.CheckpointError("cannot load")])
def test_a_result_that_could_not_be_proved_is_still_named(src, monkeypatch, trouble):
    def fail(*_args, **_options):
        raise trouble

    monkeypatch.setattr(proof, "verify", fail)
    result = run("widen", "src", "--hidden", "48", "-o", "out")
    assert result.exit_code == (130 if trouble is KeyboardInterrupt else 1)
    assert "not verified" in result.stdout and "wrote out" in result.stdout and Path("out/config.json").exists()


def test_a_dry_run_refuses_what_the_run_would(src):
    refused("widen", "src", "--hidden", "48", "--dry-run", "-o", "src", says="is or contains the source")
    refused("widen", "src", "--hidden", "48", "--dry-run", "--optimizer", "nosuch.safetensors", says="does not exist")
