"""Small files: what is opened, how large and deep it may be, and what its keys may hold."""

import json
import os
from pathlib import Path

import pytest

from growkit.checkpoint.fields import FieldKind, Fields, Flag, ListOf, MapOf, Null, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.small_files import DEEPEST, open_plain, parse_json, read_bytes, read_json
from growkit.errors import CheckpointError

TEXTS: list[tuple[bytes, str]] = [
    (b"", "no valid JSON"),
    (b"{", "no valid JSON"),
    (b"\xff\xfe{}", "no valid JSON"),
    (b"[]", "should hold a JSON object, not a list"),
    (b'{"n": 1' + b"0" * 400 + b"}", "a number of 401 digits"),
    (b'{"n": ' + b"[" * 3000 + b"]" * 3000 + b"}", "nested more than"),
    (b'{"n": ' + b'{"n": ' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 2), "nested more than"),
]


@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "small.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_json(tmp_path / "small.json")
    assert "small.json" in str(caught.value)


def test_what_is_deep_but_not_too_deep_is_read() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(text)) == text


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "good").write_bytes(b"{}")
    (tmp_path / "to-good").symlink_to(tmp_path / "good")
    for name, kind in (("pipe", "a pipe"), ("link", "a pipe"), (".", "a folder")):
        with pytest.raises(CheckpointError, match=f"is {kind} and no file"):
            open_plain(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a device"):
        open_plain(Path("/dev/zero"))
    with pytest.raises(CheckpointError, match="cannot read"):
        open_plain(tmp_path / "absent")
    assert read_json(tmp_path / "to-good") == {}


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    assert len(read_bytes(tmp_path / "large", 11)) == 11
    with pytest.raises(CheckpointError, match="more than 10 bytes"):
        read_bytes(tmp_path / "large", 10)


# kind, values it takes, values it does not
KINDS: list[tuple[FieldKind, list[object], list[object]]] = [
    (Whole(1, 9), [1, 9], [0, 10, 1.0, True, "1", None, float("nan")]),
    (Number(0, 1), [0, 1, 0.5], [-0.1, 1.1, True, "0", float("nan"), float("inf"), 10**400]),
    (Number(), [-5, 1e9], [float("inf"), 10**400]),
    (Text("[a-z]+"), ["abc"], ["", "A", "abc\n", 5, None]),
    (Flag(), [True, False], [0, 1, "true", None]),
    (OneOf(("a", 1)), ["a", 1], [True, "1", None, 1.0]),
    (Null(Whole()), [None, 3], ["", -1]),
    (ListOf(Whole(), least=1, most=2), [[1], [1, 2]], [[], [1, 2, 3], [-1], "ab", {}]),
    (MapOf(Text()), [{}, {"a": "b"}], [{"a": 1}, [], None]),
    (Fields({"a": Whole()}, needed=("a",)), [{"a": 1}, {"a": 1, "b": 2}], [{}, {"a": ""}, []]),
]


@pytest.mark.parametrize(("kind", "sound", "unsound"), KINDS)
def test_a_kind_takes_its_values_alone(kind: FieldKind, sound: list[object], unsound: list[object]) -> None:
    for value in sound:
        assert kind.fault(value) is None
        assert checked({"key": value}, Fields({"key": kind}), "file")
    for value in unsound:
        with pytest.raises(CheckpointError, match=r"^file should have key"):
            checked({"key": value}, Fields({"key": kind}), "file")


def test_a_sentence_names_file_key_expected_and_found(tmp_path: Path) -> None:
    schema = Fields({"runs": MapOf(ListOf(Fields({"lr": Number(0)}, needed=("lr",))))}, needed=("runs",))
    content = {"runs": {"one": [{"lr": 1}, {"lr": "x" * 1000}]}}
    with pytest.raises(CheckpointError) as caught:
        checked(content, schema, tmp_path / "f.json", "make it again")
    where = f"'{tmp_path / 'f.json'}' should have runs.'one'[1].lr as a finite number from 0, not 'xxx"
    assert str(caught.value).startswith(where) and str(caught.value).endswith("...; make it again")
    assert len(str(caught.value)) < len(where) + 100
    with pytest.raises(CheckpointError, match="lacks 'runs', an object"):
        checked({}, schema, tmp_path / "f.json")


def test_room_is_made_for_what_a_file_has_and_not_for_what_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(11))
    assert len(read_bytes(tmp_path / "small", 1 << 55)) == 11
