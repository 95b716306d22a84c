"""Folders pushed to the hub: what goes, what stays, and what is said where the hub refuses. A fake client records what
it is asked; nothing here opens a socket.
"""

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import tiny
import tiny_runs
import torch
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects
from on_disk import copied, fine_tune
from refusing import cases, refused, run, tree

import growkit
from growkit.checkpoint.headers import file_hash

# --train -> what its RUN/final is
SMALL = {"ia3": "IA3", "control": "LoRA", "mov": "soft mixture", "molora": "soft mixture"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A growth, a LoRA, a delta, a data set, a store, a run with its result and runs on small modules; a control panel,
    a skill on it, an application and a bundle."""
    folder = tmp_path_factory.mktemp("pushed")
    fine_tune(folder, "a", dtype=torch.float32)
    growkit.delta(folder / "base", folder / "a", folder / "lora", rank=2)
    growkit.delta(folder / "base", folder / "a", folder / "delta")
    growkit.widen(folder / "base", folder / "wide", hidden=48)
    tiny_runs.dataset(folder / "data", 400)
    growkit.teach(folder / "base", folder / "data", folder / "store", seq_len=16)
    growkit.panel(folder / "base", folder / "panel", rank=4)
    usual = dict(steps=2, seq_len=16, batch_size=2, save_every=1)
    growkit.pretrain(folder / "base", folder / "data", folder / "run", **usual)
    for word in SMALL:
        growkit.tune(folder / "base", folder / "data", folder / word, train=word, **usual)
    learned = dict(usual, sketch_tokens=32)
    growkit.skill_learn(folder / "base", folder / "panel", folder / "data", folder / "skill", size=2, **learned)
    growkit.skill_apply_layer(folder / "base", folder / "skill/final", folder / "data", folder / "use", **usual)
    tiny_runs.dataset(folder / "general", 2400)
    bundled = dict(gated=True, text=folder / "general", alpha=0.3, own=f"adding={folder / 'general'}")
    growkit.skill_plug(folder / "base", f"adding={folder / 'skill/final'}", folder / "bundle", **bundled)
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    copied(models, tmp_path, monkeypatch)


@pytest.fixture
def hub(monkeypatch):
    """A client of the hub that does nothing but note what it is asked. `held`: what the repository holds."""
    calls = []
    fake = SimpleNamespace(calls=calls, held=[".gitattributes"], public=False, fails={})

    class Client:
        def __init__(self, **who):
            assert who["library_name"] == "growkit"

        def _asked(self, name, **how):
            calls.append((name, how))
            if name in fake.fails:
                raise fake.fails[name]

        def create_repo(self, repo_id, **how):
            self._asked("create_repo", repo_id=repo_id, **how)
            return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

        def repo_info(self, **how):
            self._asked("repo_info", **how)
            return SimpleNamespace(private=not fake.public)

        def list_repo_files(self, **how):
            self._asked("list_repo_files", **how)
            return fake.held

        def upload_folder(self, **how):
            self._asked("upload_folder", **how)
            return SimpleNamespace(commit_url=f"https://hub/{how['repo_id']}/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    return fake


@pytest.fixture
def no_sockets(monkeypatch):
    def never(*_):
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)


def sent(how):
    """The files that the client's own way of filtering takes of what it was asked to send."""
    folder = Path(how["folder_path"])
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(filter_repo_objects(there, allow_patterns=how["allow_patterns"]))


KINDS = [("wide", "checkpoint", "model"), ("lora", "LoRA", "model"), ("delta", "delta", "model")]
KINDS += [
    ("data", "data set", "dataset"),
    ("store", "store of a teacher", "dataset"),
    ("panel", "control panel", "model"),
    ("run/final", "checkpoint", "model"),
    *((f"{word}/final", kind, "model") for word, kind in SMALL.items()),
    ("skill/final", "skill", "model"),
    ("use/final", "application", "model"),
    ("bundle", "bundle of skills", "model"),
]


@pytest.mark.parametrize("folder, kind, repo_type", KINDS, ids=[folder for folder, *_ in KINDS])
def test_each_kind_goes_where_the_hub_has_it(here, hub, folder, kind, repo_type):
    before = tree(folder)
    pushed = growkit.push(folder, "me/it", message="first")
    assert [name for name, _ in hub.calls] == ["create_repo", "list_repo_files", "upload_folder"]
    assert hub.calls[0][1] == dict(repo_id="me/it", repo_type=repo_type, private=None, exist_ok=True)
    how = hub.calls[-1][1]
    assert (how["repo_id"], how["repo_type"], how["revision"]) == ("me/it", repo_type, None)
    assert how["commit_message"] == "first" and how["delete_patterns"] is None
    stays = {str(path.relative_to(folder)) for path in Path(folder, "optimizer").rglob("*")}
    assert sent(how) == [path for path, _ in pushed.what.files]
    assert {*sent(how)} == {str(Path(p).relative_to(folder)) for p, is_ in before.items() if is_ != "folder"} - stays
    assert pushed.what.kind == kind and pushed.url == "https://hub/me/it/commit/1" and tree(folder) == before


# folder -> what its card says beside the base and its hash
CARDS = {
    "panel": ["control panel of", "rank 4, basis svd", "no text", "library_name: growkit"],
    "skill/final": ["transform of 2 directions", "linear weights, of the control panel `", "Loss on answers: ", "library_name: peft"],
    "use/final": ["application over 1 skills", "a cross-skill control learned in 2 steps", "| 1 |"],
    "bundle": ["| adding | 1 |", "P(a skill opens) <= 0.3 for text", "Clopper-Pearson", "growkit.load_skills(FOLDER, base=BASE)"],
}  # fmt: skip


@pytest.mark.parametrize("folder", CARDS)
def test_cards_of_skills_say_what_they_are_for(models, folder):
    card = Path(models, folder, "README.md").read_text()
    weights = file_hash(models / "base" / "model.safetensors")[:12]
    lacking = [
        words for words in [*CARDS[folder], "`base`", f"SHA-256 `{weights}`"] if words.lower() not in card.lower()
    ]
    assert not lacking, card


def test_a_dry_run_asks_the_hub_nothing(here, no_sockets):
    before = tree()
    shown = run("push", "wide", "me/it", "--dry-run", "--private", "--json")
    said = json.loads(shown.stdout)
    assert said["files"] == [{"path": p.name, "bytes": p.stat().st_size} for p in sorted(Path("wide").iterdir())]
    assert (said["repo"], said["private"], said["url"], said["dry_run"]) == ("me/it", True, None, True)
    text = run("push", "wide", "me/it", "--dry-run").stdout
    assert "model.safetensors" in text and "me/it (model repository, main)" in text and "Dry run" in text
    assert tree() == before


def test_what_stays_here(here, hub):
    for name in (".env", ".git/config", "x.partial/half", "sub/.hidden", "UNFINISHED.partial"):
        Path("run/final", name).parent.mkdir(exist_ok=True)
        Path("run/final", name).write_text("mine")
    Path("run/final/sub/kept[1]*.txt").write_text("goes")
    Path("run/final/sub/kept1x.txt").write_text("goes too")
    Path("run/final/old").mkdir()
    Path("run/final/optimizer.safetensors").write_bytes(Path("run/final/optimizer/optimizer.safetensors").read_bytes())
    pushed = growkit.push("run/final", "me/it")
    assert pushed.what.left_out == (
        ".env", ".git/", "UNFINISHED.partial", "optimizer.safetensors", "optimizer/", "sub/.hidden", "x.partial/",
    )  # fmt: skip
    assert {"sub/kept[1]*.txt", "sub/kept1x.txt", "lr_multipliers.json"} <= {*sent(hub.calls[-1][1])}
    assert not {path for path in sent(hub.calls[-1][1]) if path.startswith((".", "optimizer", "x.", "UNF"))}
    growkit.push("run/final", "me/it", optimizer=True)
    assert {"optimizer/optimizer.safetensors", "optimizer.safetensors"} <= {*sent(hub.calls[-1][1])}


def test_a_branch_must_be_there_and_a_name_gets_its_owner(here, hub):
    growkit.push("wide", "me/it", revision="dev")
    assert [name for name, _ in hub.calls] == ["list_repo_files", "upload_folder"]
    assert all(how["revision"] == "dev" for _, how in hub.calls)
    growkit.push("wide", "it", revision="main")
    assert hub.calls[-1][1]["repo_id"] == "me/it" and hub.calls[-1][1]["revision"] is None
    refused("push", "wide", "it", "--revision", "dev", says="as OWNER/it")


def test_a_public_repository_is_not_taken_for_a_private_one(here, hub):
    hub.public = True
    refused("push", "wide", "me/it", "--private", says="'me/it' is there and public")
    assert "upload_folder" not in [name for name, _ in hub.calls]
    hub.public = False
    assert growkit.push("wide", "me/it", private=True).private and hub.calls[-4][1]["private"] is True


def test_weights_of_before_are_never_left_beside_new_ones(here, hub):
    hub.held = [".gitattributes", "README.md", "model.safetensors", "onnx/model.bin"]
    growkit.push("wide", "me/it")
    hub.held = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    refused("push", "wide", "me/it", says="holds 'model-00001-of-00002.safetensors', which 'wide' lacks")
    growkit.push("wide", "me/it", replace=True)
    assert hub.calls[-1][1]["delete_patterns"] == ["*"]


def test_links_stay_within_the_folder(here, hub):
    Path("secret").write_text("secret")
    Path("wide/inner").mkdir()
    os.symlink("../README.md", "wide/inner/card.md")
    growkit.push("wide", "me/it")
    assert "inner/card.md" in sent(hub.calls[-1][1])
    for target, says in (("../../secret", "is a link out of its folder"), ("..", "is a link to a folder")):
        os.symlink(target, "wide/inner/link")
        refused("push", "wide", "me/it", says=says)
        os.unlink("wide/inner/link")
    os.mkfifo("wide/inner/pipe")
    refused("push", "wide", "me/it", "--dry-run", says="is a pipe and no file")
    assert len(hub.calls) == 3


def half(folder):
    Path(folder, "UNFINISHED").write_text("growkit was stopped")


def renamed(folder):
    Path(folder).rename(f"{folder}.partial")


FOLDERS = cases([
    (None, "nosuch", "'nosuch' does not exist"),
    (None, "wide/config.json", "is a file; push the folder it is in"),
    (lambda: half("wide"), "wide", "'wide' is unfinished"),
    (lambda: renamed("wide"), "wide.partial", "'wide.partial' is unfinished"),
    (None, "run", "'run' is a run and no checkpoint; push 'run/final'"),
    (lambda: renamed("run/final"), "run", "it has no result yet: go on with --resume auto"),
    (None, "run/checkpoints/step-00000002", "is a checkpoint of a run, which growkit alone reads; push RUN/final"),
    (lambda: Path("empty").mkdir(), "empty", "'empty' holds no checkpoint"),
    (lambda: Path("wide/config.json").unlink(), "wide", "has weights but no config.json"),
    (lambda: Path("lora/adapter_model.safetensors").unlink(), "lora", "but no adapter_model.safetensors"),
    (lambda: Path("mov/final/small_module.safetensors").unlink(), "mov/final", "small_module.json but no small_module.safetensors"),
    (lambda: Path("mov/final/small_module.json").write_text("{}"), "mov/final", "small_module.json' lacks 'format'"),
    (lambda: Path("delta/delta.safetensors").write_bytes(b"x" * 9), "delta", "delta.safetensors"),
    (None, "skill", "'skill' is a run and no checkpoint; push 'skill/final'"),
    (lambda: Path("skill/final/skill.safetensors").unlink(), "skill/final", "skill.safetensors"),
    (lambda: Path("skill/final/adapter_config.json").unlink(), "skill/final", "'skill/final' has skill.json but no adapter_config.json"),
    (lambda: Path("use/final/application.json").write_text("{}"), "use/final", "application.json' lacks 'format'"),
    (lambda: Path("panel/panel.json").write_text("{}"), "panel", "panel.json' lacks 'format'"),
    (lambda: Path("bundle/gate.safetensors").write_bytes(b"x"), "bundle", "is the certificate of another gate.safetensors"),
    (lambda: Path("bundle/skills/adding/more.txt").write_text("x"), "bundle", "holds 'more.txt', which its certificate does not name"),
    (lambda: Path("data/val.bin").write_bytes(b"xx"), "data", "'data/val.bin' has 1 tokens"),
    (lambda: Path("store/store.json").rename("store/store.unfinished.json"), "store", "'store'"),
    (lambda: Path("store/train.words").write_bytes(b"x"), "store", "the store was cut short"),
    (lambda: Path("wide/model.safetensors").write_bytes(b"version https://git-lfs"), "wide", "is a pointer of Git LFS"),
])  # fmt: skip


@pytest.mark.parametrize("spoil, folder, says", FOLDERS)
def test_what_is_not_pushed(here, hub, spoil, folder, says):
    if spoil:
        spoil()
    refused("push", folder, "me/it", says=says)
    assert not hub.calls


@pytest.mark.parametrize("name", ["a/b/c", "", "me/--x", "me/it.git", "../it", "me/ä"])
def test_a_name_that_the_hub_has_not(here, no_sockets, name):
    refused("push", "wide", name, "--dry-run", says="is no name on the hub, such as OWNER/NAME")


def test_a_folder_without_a_card_is_told(here, hub):
    tiny.make("llama", dtype=torch.float32).save_pretrained("plain")
    shown = run("push", "plain", "me/it")
    assert shown.exit_code == 0 and "has no README.md" in " ".join(shown.stdout.split())
    assert "pushed checkpoint" in shown.stdout and "https://hub/me/it/commit/1" in shown.stdout


def answered(code, kind=errors.HfHubHTTPError):
    """What the client raises for an answer of the hub's."""
    said = SimpleNamespace(status_code=code, headers={}, request=None)
    return kind(f"{code} Client Error. (Request ID: x)\n\nlong", response=said, server_message="the hub's reason")


def unreachable():
    import huggingface_hub.errors as from_there  # whichever client of HTTP it uses

    (http,) = {base for base in from_there.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"}
    return http("no route to host")


SAID = cases([
    ("create_repo", lambda: errors.LocalTokenNotFoundError("no token"), "hf auth login, or set HF_TOKEN"),
    ("create_repo", lambda: answered(401), "does not know who you are; log in with hf auth login"),
    ("create_repo", lambda: answered(403), "you may not write to 'me/it' (the hub's reason)"),
    ("list_repo_files", lambda: answered(401, errors.RepositoryNotFoundError), "does not know who you are"),
    ("list_repo_files", lambda: answered(404, errors.RepositoryNotFoundError), "the hub has no 'me/it' that you may see"),
    ("upload_folder", lambda: answered(404, errors.RevisionNotFoundError), "'me/it' has no revision 'dev'"),
    ("upload_folder", lambda: answered(400, errors.BadRequestError), "refused it (400: the hub's reason)"),
    ("upload_folder", lambda: answered(429), "answered 429 (the hub's reason); wait a little"),
    ("upload_folder", lambda: answered(503), "answered 503"),
    ("upload_folder", lambda: ValueError("Invalid metadata in README.md.\n- more"), "Invalid metadata in README.md."),
    ("upload_folder", lambda: RuntimeError("xet"), "RuntimeError: xet"),
    ("create_repo", lambda: errors.OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE is set"),
    ("create_repo", unreachable, "cannot be reached (no route to host); check your connection"),
    ("create_repo", lambda: ConnectionResetError("reset"), "cannot be reached (reset)"),
    ("upload_folder", lambda: TimeoutError(), "cannot be reached (TimeoutError)"),
])  # fmt: skip


@pytest.mark.parametrize("call, error, says", SAID)
def test_what_the_hub_refuses_is_one_sentence(here, hub, call, error, says):
    hub.fails = {call: error()}
    more = ["--revision", "dev"] if "revision" in says else []
    said = refused("push", "wide", "me/it", *more, "--json", says=says)
    assert said.startswith("'wide' was not pushed: ")
