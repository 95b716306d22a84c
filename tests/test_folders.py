"""Result folders: whole or not there, in nobody's place; and what of a source's folder is its own."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import growkit
from growkit.checkpoint.folder import write_folder
from growkit.checkpoint.new_folder import UNFINISHED, contents, new_folder
from growkit.checkpoint.source import open_checkpoint
from growkit.errors import CheckpointError, RequestError
from tests.tiny import make
from tests.tiny_runs import tokenizer


def save_tiny(family: str, folder: Path) -> Path:
    make(family).save_pretrained(folder)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def somebody_writes(out: Path) -> None:
    out.mkdir(exist_ok=True)
    (out / "theirs.txt").write_text("theirs")


def test_a_folder_that_comes_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RequestError, match="made or changed by somebody else"):
        write_folder(out, record=None, fill=lambda _: somebody_writes(out))
    assert tree(tmp_path) == {"out/theirs.txt": b"theirs"}


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_changes_meanwhile_stays(tmp_path: Path, replace: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")
    with pytest.raises(RequestError, match="made or changed by somebody else"):
        write_folder(
            out, record=None, fill=lambda _: somebody_writes(out), replaces=contents(out) if replace else frozenset()
        )
    assert set(tree(tmp_path)) == {"out/old.txt"} | ({"out/theirs.txt"} if replace else set())


def test_what_may_give_way_does(tmp_path: Path) -> None:
    out = tmp_path / "out"
    somebody_writes(out)
    write_folder(
        out, record=None, fill=lambda folder: (folder / "new").write_text("new") and None, replaces=contents(out)
    )
    assert tree(tmp_path) == {"out/new": b"new"}


def test_a_file_that_its_owner_changes_meanwhile_stays(tmp_path: Path) -> None:
    deep = tmp_path / "out" / "deep"
    deep.mkdir(parents=True)
    (deep / "notes").write_text("old")
    before = contents(tmp_path / "out")
    with pytest.raises(RequestError, match="made or changed by somebody else"):
        write_folder(
            tmp_path / "out", record=None, fill=lambda _: (deep / "notes").write_text("newer") and None, replaces=before
        )
    assert tree(tmp_path) == {"out/deep/notes": b"newer"}


def test_what_changes_in_the_last_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rename = tmp_path / "out", os.rename
    somebody_writes(out)
    before = contents(out)

    def and_somebody_writes(old: Path, new: Path) -> None:
        if Path(old) == out:
            (out / "more.txt").write_text("more")
        rename(old, new)

    monkeypatch.setattr(os, "rename", and_somebody_writes)
    with pytest.raises(RequestError, match="made or changed by somebody else"):
        write_folder(out, record=None, replaces=before)
    assert tree(tmp_path) == {"out/theirs.txt": b"theirs", "out/more.txt": b"more"}


@pytest.mark.parametrize("force", [False, True])
def test_init_replaces_nothing_that_came_after_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    source, out = save_tiny("llama", tmp_path / "src"), tmp_path / "out"
    import growkit.models.init as module

    looked = module.check_target

    def and_somebody_writes(*args: object, **named: object) -> object:
        replaces = looked(*args, **named)  # type: ignore[arg-type]
        somebody_writes(out)
        return replaces

    monkeypatch.setattr(module, "check_target", and_somebody_writes)
    with pytest.raises(RequestError, match="made or changed by somebody else"):
        growkit.init(source / "config.json", out, force=force)
    assert tree(out) == {"theirs.txt": b"theirs"} and not (tmp_path / "out.partial").exists()


def full(_: Path) -> None:
    raise OSError(28, "No space left on device")


def full_in_rust(_: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("write", [full, full_in_rust])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(RequestError, match=r"could not write .*No space left on device; nothing was kept"):
        write_folder(tmp_path / "deep" / "out", record=None, fill=write)
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_ours_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out"):
        raise ZeroDivisionError("os error")
    assert not list(tmp_path.iterdir())


def test_what_a_kill_leaves_while_it_is_cleared_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    for name in ("a", UNFINISHED, "z"):
        (partial / name).write_text("")
    removed: list[str] = []
    unlink = Path.unlink

    def remembered(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", remembered)
    with new_folder(tmp_path / "out") as folder:
        assert sorted(removed) == ["a", "z"] and [path.name for path in folder.iterdir()] == [UNFINISHED]


def test_init_takes_no_link_out_of_its_source(tmp_path: Path) -> None:
    source = save_tiny("llama", tmp_path / "src")
    (tmp_path / "secret").write_text("{}")
    (source / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json' is a link out of its folder, to .*secret"):
        growkit.init(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json"])
def test_a_merge_takes_no_link_out_of_its_members(tmp_path: Path, name: str) -> None:
    first, other = save_tiny("llama", tmp_path / "a"), save_tiny("llama", tmp_path / "b")
    (tmp_path / "secret").write_text("{}")
    (first / name).unlink(missing_ok=True)
    (other / name).unlink(missing_ok=True)
    (other / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=rf"{name}' is a link out of its folder, to .*secret"):
        growkit.merge([first, other], out=tmp_path / "out", method="average")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make_result", [growkit.init, partial(growkit.widen, hidden=48)])
def test_chat_templates_with_names_come_along(tmp_path: Path, make_result: Callable[..., object]) -> None:
    source = save_tiny("llama", tmp_path / "src")
    templates = source / "additional_chat_templates"
    templates.mkdir()
    (templates / "rag.jinja").write_text("{{ documents }}")
    make_result(source, tmp_path / "out")
    assert (tmp_path / "out" / "additional_chat_templates" / "rag.jinja").read_text() == "{{ documents }}"
    templates.rename(tmp_path / "elsewhere")
    templates.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="additional_chat_templates' is a link out of its folder"):
        make_result(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "LICENSE", "config.json", "generation_config.json"])
def test_a_link_out_of_a_source_is_refused(tmp_path: Path, name: str) -> None:
    source = save_tiny("llama", tmp_path / "src")
    secret = tmp_path / "secret.json"
    secret.write_bytes((source / "config.json").read_bytes())
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match=rf"{name}' is a link out of its folder, to .*secret\.json"):
        growkit.widen(source, tmp_path / "out", hidden=48)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("read", ["tokenize", "evaluate"])
def test_a_tokenizer_of_another_folder_is_no_link_here(tmp_path: Path, read: str) -> None:
    source = save_tiny("llama", tmp_path / "src")
    tokenizer().save_pretrained(tmp_path / "theirs")
    (source / "tokenizer.json").symlink_to(tmp_path / "theirs" / "tokenizer.json")
    (tmp_path / "text.txt").write_text("a text")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json' is a link out of its folder, to .*theirs"):
        if read == "tokenize":
            growkit.tokenize(tmp_path / "text.txt", tmp_path / "out", tokenizer=source)
        else:
            growkit.evaluate(source, data=tmp_path / "text.txt")
    assert not (tmp_path / "out").exists()


def test_links_within_a_folder_and_of_the_hub_cache_stay(tmp_path: Path) -> None:
    source = save_tiny("llama", tmp_path / "src")
    repository = tmp_path / "models--org--name"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(source.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.join("..", "..", "blobs", str(number)))
    (source / "LICENSE").write_text("free")
    (source / "LICENSE.txt").symlink_to("LICENSE")
    growkit.widen(snapshot, tmp_path / "cached", hidden=48)
    growkit.widen(source, tmp_path / "plain", hidden=48)
    assert (tmp_path / "plain" / "LICENSE.txt").read_text() == "free"
    one, other = (open_checkpoint(tmp_path / name) for name in ("cached", "plain"))
    assert one.tensors.keys() == other.tensors.keys()
    rows = torch.arange(4).numpy()
    assert all(torch.equal(one.rows(name, rows), other.rows(name, rows)) for name in one.tensors)


def test_links_in_a_circle_are_a_sentence(tmp_path: Path) -> None:
    source, name = save_tiny("llama", tmp_path / "src"), "config.json"
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(tmp_path / "back")
    (tmp_path / "back").symlink_to(source / name)
    with pytest.raises(CheckpointError, match=r"config\.json' is a link that leads back to itself"):
        open_checkpoint(source)


@pytest.mark.parametrize("inner", ["", "inner"])
def test_an_output_that_is_a_circle_of_links_is_a_sentence(tmp_path: Path, inner: str) -> None:
    source = save_tiny("llama", tmp_path / "src")
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    with pytest.raises(RequestError, match=r"one.*(no folder|symbolic links)"):
        growkit.widen(source, tmp_path / "one" / inner, hidden=48)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other", "src"]
