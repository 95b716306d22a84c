"""The public functions and the commands made from them: two ways to say one thing, held equal."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Literal, Optional, get_args

import pytest
import tiny
import torch
import typer
from refusing import run, tree

import growkit
from growkit import api, errors
from growkit.api.option import SAME, Argument, Callback, Option, number_of
from growkit.api.public import public
from growkit.cli import app
from growkit.cli.commands import SHORT, kind_of
from growkit.data.tokenize import tokenize
from growkit.errors import ProofInterrupted
from growkit.growth.depth.layers import METHODS as DEPTHS
from growkit.growth.prepare import Options
from growkit.growth.request import Depth, Experts, Recipe, recipe
from growkit.growth.spelling import DTYPES, layer_numbers, size_in_bytes
from growkit.merging.methods import METHODS, VOCABULARIES, MergeRequest
from growkit.merging.prepare_merge import MergeOptions
from growkit.models import evaluate, init
from growkit.models import verify as proof
from growkit.training.machine import SHARDS
from growkit.training.optim import DECAYS
from growkit.training.settings import PRECISIONS, UNTIL, Settings
from growkit.training.stages import SCHEDULES
from growkit.training.teachers.teaching import ALPHAS

COMMANDS = typer.main.get_command(app).commands
DOORS = {name: getattr(growkit, name) for name in api.__all__}
OF_MODELS = ("grow_state_dict", "load_skills", "param_groups")  # take or give a live model, so no command can
FUNCTIONS = {
    {"evaluate": "eval", "check_family": "check-family"}.get(name, name.replace("_", " ", 1).replace("_", "-")): door
    for name, door in DOORS.items()
    if name not in OF_MODELS
}


def parameters(function):
    return inspect.signature(function).parameters


def said(parameter):
    """The Option, Argument or Callback of a parameter, or None."""
    found = [
        s for s in getattr(parameter.annotation, "__metadata__", ()) if isinstance(s, Option | Argument | Callback)
    ]
    assert len(found) < 2
    return found[0] if found else None


def fresh(code: str) -> set[str]:
    """What a new interpreter has imported after some code."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print('MODULES', *sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(shown.stdout.rpartition("MODULES")[2].split())


# ---------------------------------------------------------------- a command is its function


def test_each_function_has_a_command_and_each_command_a_function():
    assert COMMANDS.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_command_takes_what_its_function_takes(name):
    """The same parameters, kinds and defaults, but for --json, callbacks and the one named exception."""
    command = COMMANDS[name]
    taken = {key: p for key, p in parameters(command.callback).items() if key != "as_json"}
    declared = {key: p for key, p in parameters(FUNCTIONS[name]).items() if not isinstance(said(p), Callback)}
    assert taken.keys() == declared.keys() == {p.name for p in command.params} - {"as_json", "help"}
    for key, parameter in declared.items():
        option, written = said(parameter), next(p for p in command.params if p.name == key)
        annotation, info = get_args(taken[key].annotation)
        assert (written.param_type_name == "argument") == isinstance(option, Argument), key
        kind, _ = kind_of(get_args(parameter.annotation)[0])
        may_lack = parameter.default is None or getattr(option, "may_lack", False)
        assert annotation == (Optional[kind] if may_lack else kind), key
        assert written.required == (parameter.default is parameter.empty and not may_lack), key
        if key == "verify":
            assert parameter.default is False and taken[key].default is True and option.command_default is True
        elif not may_lack or parameter.default is None:
            # an option that may be given again has a list of what is given once
            once = kind == list[str] and isinstance(parameter.default, str)
            assert taken[key].default == ([parameter.default] if once else parameter.default), key
            assert getattr(option, "command_default", SAME) is SAME, key
        if isinstance(option, Option):
            assert (info.rich_help_panel, info.min, info.max) == (option.panel, None, None), key
            assert set(option.flags or [f"--{key.replace('_', '-')}"]) <= set(written.opts), key


NUMBERS = {
    name: {
        key: (option, kind)
        for key, p in parameters(door).items()
        if isinstance(option := said(p), Option) and (kind := number_of(get_args(p.annotation)[0]))
    }
    for name, door in FUNCTIONS.items()
}


@pytest.mark.parametrize("name", [name for name, numbers in NUMBERS.items() if numbers])
def test_every_number_has_a_range_which_commands_and_functions_share(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key, (option, kind) in NUMBERS[name].items():
        number_has_its_range(name, key, option, kind)
    assert not list(tmp_path.iterdir())


def number_has_its_range(name, key, option, kind):
    least, most = option.within
    assert least < most and float("-inf") < least and most < float("inf")
    needed = {p.name: "absent" for p in parameters(FUNCTIONS[name]).values() if p.default is p.empty}
    wrong = [least - 1, most * 2 + 1, 10**39, -(10**39)] + ([float("nan"), float("inf")] if kind is float else [])
    for value in (kind(number) for number in wrong):
        with pytest.raises(errors.RequestError, match="should be from") as refusal:
            FUNCTIONS[name](**needed, **{key: value})
        arguments = [f"--{n}=absent" for n in needed if isinstance(said(parameters(FUNCTIONS[name])[n]), Option)]
        line = [*name.split(), *["absent"] * (len(needed) - len(arguments)), *arguments]
        result = run(*line, f"{option.flag(key)}={value}")
        assert result.exit_code == 2 and result.stderr == f"growkit: {refusal.value}\n", result.stderr
    for value in (True, "1", [1]) + ((1.5,) if kind is int else ()):
        with pytest.raises(errors.RequestError, match="number, not"):
            FUNCTIONS[name](**needed, **{key: value})


def test_flags_that_switch_off():
    both = {
        (name, p.name) for name, command in COMMANDS.items() for p in command.params if getattr(p, "secondary_opts", [])
    }
    grown = {(name, "verify") for name in ("widen", "stack", "grow", "fuse", "upcycle")}
    assert both == grown | {(name, "compile") for name in ("pretrain", "tune", "skill learn", "skill apply-layer")}


def test_every_growth_and_merge_and_run_can_be_dry():
    dry = {name for name, door in FUNCTIONS.items() if "dry_run" in parameters(door)}
    assert dry == {
        "widen",
        "stack",
        "grow",
        "fuse",
        "upcycle",
        "merge",
        "apply",
        "pretrain",
        "tune",
        "skill learn",
        "skill plug",
        "skill apply-layer",
        "push",
        "chain",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_help_at_80_columns_holds_every_flag_and_every_choice_whole(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(*name.split(), "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for parameter in COMMANDS[name].params:
        for flag in (*parameter.opts, *parameter.secondary_opts) if parameter.param_type_name == "option" else ():
            assert re.search(rf"(?<!\S){re.escape(flag)}(?!\S)", shown), flag
    door = FUNCTIONS[name]
    for parameter in parameters(door).values():
        choices = kind_of(get_args(parameter.annotation)[0])[1] if isinstance(said(parameter), Option) else ()
        for choice in choices:
            assert re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", shown), choice
        assert not choices or ("|".join(choices) in shown) == (len("|".join(choices)) <= SHORT)


# ---------------------------------------------------------------- a function says all of itself


@pytest.mark.parametrize("name", DOORS)
def test_public_functions_say_what_they_take(name):
    door = DOORS[name]
    for key, parameter in parameters(door).items():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY), "no *args, no **kwargs"
        assert parameter.annotation is not parameter.empty, key
        assert re.search(rf"\b{key}\b", door.__doc__) or said(parameter), key
    assert inspect.signature(door).return_annotation is not inspect.Signature.empty
    assert door.__module__ == f"growkit.api.{name}" and Path(api.__file__).with_name(f"{name}.py").exists()


def test_every_exported_function_has_no_open_keywords():
    for name in growkit.__all__:
        if inspect.isfunction(getattr(growkit, name)):
            kinds = {p.kind for p in parameters(getattr(growkit, name)).values()}
            assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}, name


CHOICES = [  # door, parameter, the table of its choices
    ("stack", "method", {**DEPTHS, "auto": None}), ("grow", "depth", {**DEPTHS, "auto": None}), ("widen", "dtype", DTYPES), ("init", "dtype", init.DTYPES),
    ("merge", "method", METHODS), ("merge", "vocab", VOCABULARIES), ("pretrain", "schedule", SCHEDULES),
    ("pretrain", "precision", PRECISIONS), ("pretrain", "shard", SHARDS), ("pretrain", "decay", DECAYS),
    ("pretrain", "teacher_schedule", ALPHAS), ("pretrain", "teacher_until", UNTIL),
]  # fmt: skip


@pytest.mark.parametrize("name, key, table", CHOICES, ids=lambda v: v if isinstance(v, str) else "")
def test_choices_are_the_rows_of_their_tables(name, key, table):
    assert sorted(kind_of(get_args(parameters(DOORS[name])[key].annotation)[0])[1]) == sorted(table)


def test_rooms_that_have_defaults_have_those_of_the_doors():
    def default(name, key):
        return parameters(DOORS[name])[key].default

    def differing(room, name, words=()):
        words = {"count": "experts", **dict(words)}
        found = [(f.name, f.default) for f in fields(room) if f.default is not MISSING]
        return [key for key, value in found if words.get(key, key) in parameters(DOORS[name])
                and default(name, words.get(key, key)) != value]  # fmt: skip

    assert differing(Recipe, "widen") == ["keep", "noise"]  # which follow the method
    assert differing(Experts, "upcycle") == []
    assert differing(Depth, "stack") == ["after"] and layer_numbers(default("stack", "after")) == Depth.after
    assert differing(Depth, "grow", {"method": "depth"}) == ["after"]
    assert differing(Options, "widen") == ["optimizer", "progress", "announce"]  # fuse takes no state by itself
    assert differing(Options, "fuse") == ["progress", "announce"] == differing(MergeOptions, "merge")
    assert differing(MergeRequest, "merge") == [] == differing(MergeOptions, "apply", {"progress": "", "announce": ""})
    for name in ("widen", "upcycle", "merge", "apply"):
        assert size_in_bytes(default(name, "shard_size")) == Options.shard_bytes == MergeOptions.shard_bytes
    own = {"begin", "val", "before_has", "after_has", "exactness"}  # of rooms, which no door has
    for name, room in (
        ("evaluate", evaluate.measuring),
        ("init", init.init),
        ("tokenize", tokenize),
        ("verify", proof.verify),
    ):
        for key, parameter in parameters(room).items():
            if parameter.default is not parameter.empty and key not in own:
                assert parameter.default == default(name, key), (name, key)


def test_settings_have_no_second_defaults_and_a_door_for_each():
    own = {"hashes"}  # found, not asked for
    assert {f.name for f in fields(Settings) if f.default is not MISSING or f.default_factory is not MISSING} == own
    asked = {f.name for f in fields(Settings)} - own - {"command"}
    assert asked <= parameters(growkit.tune).keys() and asked - {"train", "mix"} <= parameters(growkit.pretrain).keys()


def test_runs_are_declared_once():
    """What pretrain and tune share is one parameter, but for where their defaults are others."""
    one, other = parameters(growkit.pretrain), parameters(growkit.tune)
    different = {key for key in one.keys() - {"forecast"} if one[key].annotation != other[key].annotation}
    assert different == {"data", "epochs", "lr", "warmup", "balance", "router_z"} and other.keys() - one.keys() == {
        "train",
        "mix",
    }


@pytest.mark.parametrize("kind", [Recipe, Depth, Experts, Options, MergeOptions, Settings])
def test_fields_say_beside_them_what_they_are(kind):
    lines = inspect.getsource(kind).splitlines()
    for field in fields(kind):
        (line,) = [line for line in lines if re.match(rf"    {field.name}: ", line)]
        assert "  # " in line, field.name
    with pytest.raises(TypeError, match="positional"):
        kind(1)


# ---------------------------------------------------------------- misspelt, and answered at once


SPELT = [
    (lambda: growkit.merge(["a"], dorp=0.5), "merge() got an unexpected keyword argument 'dorp'. Did you mean 'drop'?"),
    (lambda: growkit.widen("a", hiden=4), "widen() got an unexpected keyword argument 'hiden'. Did you mean 'hidden'?"),
    (lambda: growkit.pretrain("a", "b", "c", step=1), "unexpected keyword argument 'step'. Did you mean 'steps'?"),
    (
        lambda: growkit.stack("a", shard_bytes=1),
        "unexpected keyword argument 'shard_bytes'. Did you mean 'shard_size'?",
    ),
    (lambda: growkit.inspect("a", xyzzy=1), "inspect() got an unexpected keyword argument 'xyzzy'"),
]


@pytest.mark.parametrize("call, says", SPELT, ids=lambda v: v[:40] if isinstance(v, str) else "")
def test_a_misspelt_keyword_is_named_with_the_nearest_right_one(call, says):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value).endswith(says)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has this hint from 3.13 on")
def test_the_hint_is_that_of_python():
    def plain(source, *, hidden=None):
        return source, hidden

    for function in (plain, public(plain)):
        with pytest.raises(TypeError) as caught:
            function("a", hiden=4)
        assert str(caught.value).endswith("plain() got an unexpected keyword argument 'hiden'. Did you mean 'hidden'?")


def test_nothing_heavy_is_imported_by_help_or_by_the_doors():
    heavy = {"torch", "transformers", "numpy", "safetensors"}
    assert not heavy & fresh("from growkit.cli import app; app(['--help'], standalone_mode=False)")
    assert not heavy & fresh("from growkit.cli import app; app(['widen', '--help'], standalone_mode=False)")
    modules = sorted(f"growkit.api.{path.stem}" for path in Path(api.__file__).parent.glob("*.py"))
    loaded = fresh(f"import {', '.join(m.removesuffix('.__init__') for m in modules)}")
    assert not (heavy | {"typer", "rich"}) & loaded and "growkit.api.widen" in loaded


def test_types_ship():
    assert Path(growkit.__file__).with_name("py.typed").exists()


# ---------------------------------------------------------------- what comes back


@pytest.fixture
def src(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32).save_pretrained("src")
    return "src"


def test_a_dry_run_hands_back_the_plan_and_writes_nothing(src):
    before = tree()
    grown = growkit.stack(src, layers=6, dry_run=True, verify=True)
    assert grown.dry_run and grown.plan.layers.new == 6 and grown.folder == Path("src-l6") and grown.report is None
    assert not grown.unverified and not grown.failed
    merged = growkit.merge([src], base=src, dry_run=True)
    assert merged.dry_run and merged.plan.request.method == "dare" and merged.folder == Path("src-dare")
    assert tree() == before


def test_apply_can_be_dry(src):
    tiny.make("llama", dtype=torch.float32, seed=1).save_pretrained("tuned")
    growkit.delta(src, "tuned", "skill")
    before = tree()
    applied = growkit.apply(src, ["skill:0.5"], dry_run=True)
    assert applied.dry_run and [member.weight for member in applied.plan.members] == [0.5]
    shown = run("apply", src, "skill:0.5", "--dry-run", "--json")
    assert json.loads(shown.stdout) == applied.plan.to_json() and tree() == before
    assert growkit.apply(src, ["skill"]).folder == applied.folder and applied.folder.exists()


def test_a_proof_that_breaks_off_leaves_the_result_and_the_reason(src, monkeypatch):
    def broken(*_args, **_options):
        raise growkit.CheckpointError("cannot load")

    monkeypatch.setattr(proof, "verify", broken)
    grown = growkit.widen(src, "out", hidden=48, verify=True)
    assert grown.failed and grown.unverified == "cannot load" and Path("out/config.json").exists()
    monkeypatch.setattr(proof, "fits_in_memory", lambda plan: "too large")
    grown = growkit.widen(src, "large", hidden=48, verify=True)
    assert not grown.failed and grown.unverified == "too large" and grown.report is None


def test_ctrl_c_in_a_proof_stops_the_caller_and_tells_what_is_there(src, monkeypatch):
    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "verify", stopped)
    with pytest.raises(ProofInterrupted) as caught:
        growkit.widen(src, "out", hidden=48, verify=True)
    assert caught.value.grown.folder == Path("out") and caught.value.grown.unverified == "interrupted"


@pytest.mark.parametrize("size, bytes_", [("5GB", 5 * 10**9), ("20 KiB", 20 * 1024), (1000, 1000), ("1e3", 1000)])
def test_sizes_as_people_write_them(size, bytes_):
    assert size_in_bytes(size) == bytes_


def test_layers_as_people_write_them(src):
    plans = [growkit.stack(src, method="identity", after=after, dry_run=True).plan for after in ("1,3", [1, 3], (1, 3))]
    assert len({str(plan.layers.index) for plan in plans}) == 1 and plans[0].layers.new == 5
    with pytest.raises(growkit.RequestError, match=re.escape("--after '1;3' should be layer numbers")):
        growkit.stack(src, method="identity", after="1;3", dry_run=True)


def test_the_sizes_of_another_model_are_part_of_the_request(src):
    tiny.make("llama", dtype=torch.float32, hidden_size=48, num_hidden_layers=5).save_pretrained("larger")
    plan = growkit.grow(src, like="larger", depth="interleave", dry_run=True).plan
    assert plan.recipe.like is None and plan.recipe.depth.layers == 5 and plan.recipe.depth.method == "interleave"
    assert plan.recipe.sizes["hidden"] == 48 and plan.recipe.command == "grow" and "like" not in plan.recipe.to_json()
    for word, option in (("layers", "--layers"), ("kv_heads", "--kv-heads"), ("hidden", "--hidden")):
        with pytest.raises(growkit.RequestError, match=f"{option} says one again"):
            growkit.grow(src, like="larger", dry_run=True, **{word: 6})


def test_moments_are_options_of_a_run_and_are_checked(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["pretrain", world / "llama", "--data", world / "data", "--out", "run", "--steps", "2", "--seq-len", "16"]
    assert run(*asked, "--dry-run", "--beta1", "0.8", "--beta2", "0.99", "--eps", "1e-6").exit_code == 0
    for option in ("--beta1", "--beta2"):
        refused = run(*asked, option, "1")
        assert refused.exit_code == 2 and f"{option} 1.0 should be from 0" in refused.stderr
    assert not Path("run").exists()


def test_noise_follows_the_method_where_nothing_is_said():
    assert [recipe(**r).noise for r in ({}, {"method": "aki"}, {"mode": "fpi"}, {"noise": 0.1})] == [0.5, 0.0, 0.0, 0.1]


def test_kinds_of_words():
    assert kind_of(int | str) == (str, ()) and kind_of(float | None) == (float, ())
    assert kind_of(Literal["a", "b"] | None) == (str, ("a", "b"))
    with pytest.raises(ValueError):
        kind_of(int | float)
