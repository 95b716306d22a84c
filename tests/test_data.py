"""Text becomes tokens whole, in order and fast; a batch is a function of (seed, step) alone; bad text gets one
sentence."""

import errno
import gzip
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from halting import die_half_way, ended, forked, halted
from hypothesis import given, settings
from hypothesis import strategies as st
from on_disk import thesis
from refusing import cases, refused, run, tree
from texts import EXCERPT, TOKENIZERS, header, put, wrap
from tokenizers import Tokenizer, models, pre_tokenizers

import growkit
from growkit.data import encode, text, workers
from growkit.data.batches import IGNORED, Batches
from growkit.data.stored_ids import StoredIds
from growkit.data.tokenize import validates
from growkit.data.tokens import MAGIC, TokenWriter, open_tokens
from growkit.errors import CheckpointError, GrowkitError, RequestError

ODD = list("ab Zé.,;:!?'\u2019”“\"\n\r\t-1 \u00a0\u0301中_<\x1c\u3000") + [
    "'s",
    "<end>",
    " the",
    ". He",
    "[MASK]",
    "  ",
]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(parts=st.lists(st.lists(st.sampled_from(ODD), max_size=30), min_size=1, max_size=3))
@settings(max_examples=300)
def test_cutting_text_into_pieces_changes_no_token(name, parts):
    tokenizer, texts = TOKENIZERS[name], ["".join(part) for part in parts]
    fast = encode.Encoder(encode.Encoding(tokenizer.to_str(), 0, 4))
    for one, ids in zip(texts, fast(texts)):
        assert np.frombuffer(ids, "<u4").tolist() == [*tokenizer.encode(one, add_special_tokens=False).ids, 0]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_of_a_real_text(name):
    whole = EXCERPT.read_text("utf-8")
    fast = encode.Encoder(encode.Encoding(TOKENIZERS[name].to_str(), None, 2))
    (ids,) = fast([whole])
    assert np.frombuffer(ids, "<u2").tolist() == TOKENIZERS[name].encode(whole, add_special_tokens=False).ids
    assert (len(fast._pieces) > 1000) == (name not in ("t5", "prefixed")), "which tokenizers can be cut before"


def test_what_is_kept_of_pieces_is_bounded(monkeypatch):
    monkeypatch.setattr(encode, "KNOWN_PIECES", 100)
    fast = encode.Encoder(encode.Encoding(TOKENIZERS["gpt2"].to_str(), None, 2))
    for number in range(50):
        fast([" ".join(f"word{number}{letter}" for letter in "abcdefgh"), "x" * 1000])
    assert len(fast._pieces) < 120 and max(map(len, fast._pieces)) <= encode.LONGEST_KNOWN


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a tokenizer, some books and other text."""
    monkeypatch.chdir(tmp_path)
    wrap(TOKENIZERS["gpt2"], eos_token="<end>").save_pretrained("tok")
    Path("books").mkdir()
    words = EXCERPT.read_text("utf-8")
    for number in range(6):
        Path(f"books/{number}.txt").write_text(words[number * 9000 : (number + 1) * 9000], "utf-8")
    return tmp_path


def ids_of(path="data", split="train"):
    return open_tokens(path, split).ids[:].tolist()


def test_dataset_by_hand(here):
    made = growkit.tokenize(["books/1.txt", "books/0.txt"], "data", "tok", val="books/[23].txt")
    tokenizer = transformers.AutoTokenizer.from_pretrained("tok")
    texts = [Path(f"books/{n}.txt").read_text("utf-8") for n in range(4)]
    expected = [tokenizer(t, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for t in texts]
    assert ids_of() == expected[1] + expected[0] and ids_of(split="val") == expected[2] + expected[3]
    assert np.load("data/train.idx.npy").tolist() == [0, len(expected[1]), len(expected[1] + expected[0])]
    meta = json.loads(Path("data/meta.json").read_text())
    assert meta == made.meta and meta["dtype"] == "uint16" and meta["eos_id"] == 0 and meta["vocab_size"] == 400
    assert meta["tokenizer"] == hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    sizes = [len(t.encode()) for t in texts]
    assert meta["splits"]["train"] == {"tokens": len(ids_of()), "documents": 2, "text_bytes": sizes[0] + sizes[1]}
    assert meta["splits"]["val"]["text_bytes"] == sizes[2] + sizes[3]
    assert sorted(os.listdir("data")) == ["meta.json", "train.bin", "train.idx.npy", "val.bin", "val.idx.npy"]


def test_all_kinds_of_files_say_the_same(here):
    texts = [path.read_text("utf-8") for path in sorted(Path("books").iterdir())] + ["é中 \U0001f600"]
    Path("books/6.txt").write_text(texts[-1], "utf-8")
    lines = "\n\n".join(json.dumps({"id": n, "body": t}) for n, t in enumerate([*texts, " \n", ""]))
    Path("a.jsonl").write_text(lines)
    Path("b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    files = ["a.jsonl", "b.jsonl.gz"]
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        pass
    else:
        parquet.write_table(pyarrow.table({"body": [*texts, None]}), "c.parquet")
        files.append("c.parquet")
    growkit.tokenize("books", "data", "tok")
    for file in files:
        growkit.tokenize(file, f"{file}-data", "tok", text_key="body")
        for name in ("train.bin", "train.idx.npy"):
            assert Path(f"{file}-data", name).read_bytes() == Path("data", name).read_bytes(), file


def test_parquet_from_end_to_end(here):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"body": ["one"] * 1000 + ["two"], "n": range(1001)}), "c.parquet")
    growkit.tokenize("c.parquet", "data", "tok", text_key="body")
    assert len(np.load("data/train.idx.npy")) == 1002
    parquet.write_table(pyarrow.table({"body": [1, 2]}), "d.parquet")
    refused("tokenize", "c.parquet", "--tokenizer", "tok", "-o", "x", says="has no key 'text'; it has 'body', 'n'")
    refused(
        "tokenize", "d.parquet", "--text-key", "body", "--tokenizer", "tok", "-o", "x", says="has a int under 'body'"
    )
    Path("e.parquet").write_bytes(b"PAR1 no")
    refused("tokenize", "e.parquet", "--tokenizer", "tok", "-o", "x", says="'e.parquet' is no sound parquet file")


def test_parquet_without_pyarrow(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("a.parquet").touch()
    refused(
        "tokenize",
        "a.parquet",
        "--tokenizer",
        "tok",
        "-o",
        "data",
        says="needs pyarrow: pip install 'growkit[parquet]'",
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_change_nothing(here, monkeypatch, workers):
    monkeypatch.setattr("growkit.data.tokenize.BATCH_CHARACTERS", 5000)
    options = ["--tokenizer", "tok", "--val-fraction", "0.3", "--workers", workers]
    assert run("tokenize", "books", *options, "-o", "data").exit_code == 0
    growkit.tokenize("books", "one", "tok", val_fraction=0.3)
    assert list(tree("data").values()) == list(tree("one").values())
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_a_process_that_dies_is_told(here):
    text = EXCERPT.read_text("utf-8")[:200_000]  # more than a pipe holds
    with (
        pytest.raises(GrowkitError, match=r"a process that encodes text ended \(exit code -9\); try fewer --workers"),
        encode.encoding(encode.Encoding(TOKENIZERS["gpt2"].to_str(), None, 2), 2) as encoded,
    ):
        for number, _ in enumerate(encoded(("tag", [text]) for _ in count())):
            if number == 3:
                multiprocessing.active_children()[0].kill()


def test_a_process_that_dies_while_it_answers_is_told(here, monkeypatch):
    monkeypatch.setattr(encode, "_encode", die_half_way)
    recipe = encode.Encoding(TOKENIZERS["gpt2"].to_str(), None, 2)
    with pytest.raises(GrowkitError, match=r"ended \(exit code 7\)"), encode.encoding(recipe, 2) as encoded:
        list(encoded([("tag", ["text"])] * 9))


def test_batches_on_their_way_are_few_and_come_back_in_order(here):
    sent = []
    batches = ((sent.append(number) or number, [f"number {number}"] * 9) for number in range(60))
    recipe = encode.Encoding(TOKENIZERS["gpt2"].to_str(), None, 2)
    with encode.encoding(recipe, 3) as encoded:
        for place, (number, ids) in enumerate(encoded(batches)):
            assert place == number and len(sent) <= place + 7
            assert ids == encode.Encoder(recipe)([f"number {number}"] * 9)
    assert not multiprocessing.active_children()


def test_a_daemon_encodes_by_itself(here, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with encode.encoding(encode.Encoding(TOKENIZERS["gpt2"].to_str(), None, 2), 3) as encoded:
        assert [tag for tag, _ in encoded([("tag", ["text"])] * 2)] == ["tag"] * 2
        assert not multiprocessing.active_children()


def test_a_system_without_processes_is_told(here, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(workers, "Pipe", none)
    with pytest.raises(GrowkitError, match=r"no processes can be started here .*; use one worker"):
        growkit.tokenize("books", "data", "tok", workers=2)
    assert not Path("data.partial").exists()


SCRIPT = """
import growkit
growkit.data.tokenize.BATCH_CHARACTERS = 5000
growkit.tokenize("books", "data", "tok", val_fraction=0.3, workers=2)
print("this ran")
"""


def test_a_script_without_a_guard_runs_once(here):
    """Processes of multiprocessing's would run it again, each of them."""
    Path("script.py").write_text(SCRIPT.replace("growkit\n", "growkit.data.tokenize\n", 1))
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout == "this ran\n" and not done.stderr
    growkit.tokenize("books", "one", "tok", val_fraction=0.3, workers=1)
    assert list(tree("data").values()) == list(tree("one").values())


def test_processes_load_nothing_that_is_slow():
    code = "import sys, growkit.data.encode; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


BLANKS = st.lists(st.sampled_from(["word ", "x" * 70, "\n", "\n\n", "\r\n\r\n", "é", "\n \n"]), max_size=400)


@given(parts=BLANKS, block=st.integers(1, 300))
@settings(max_examples=150)
def test_a_long_text_in_pieces_is_that_text(tmp_path_factory, parts, block):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WHOLE", 300), ("PIECE", 100), ("FAR", 400)):
            patch.setattr(text, name, value)
        path = tmp_path_factory.mktemp("text") / "long.txt"
        path.write_bytes("".join(parts).encode())
        pieces = list(text._plain(path, "", lambda _: None))
        assert "".join(pieces) == "".join(parts)
        if path.stat().st_size <= 300:
            assert len(pieces) == 1
        for piece in pieces[:-1]:
            assert 100 < len(piece) <= 400
            assert text.BLANK.search(piece, 100) is None or text.BLANK.search(piece, 100).end() == len(piece)
        assert len(pieces[-1]) <= (300 if len(pieces) == 1 else 200)


def test_a_long_text_ends_its_documents_at_blank_lines(here):
    whole = "\n\n".join(["It is a truth universally acknowledged, é. " * 20] * 800)
    Path("long.txt").write_text("\ufeff" + whole, "utf-8")
    pieces = list(text.documents([Path("long.txt")]))
    assert "".join(pieces) == whole and all(piece.endswith("\n\n") for piece in pieces[:-1])
    assert len(pieces) == len(whole) // text.PIECE and len(pieces) > 9


@given(fraction=st.floats(0.001, 0.5), seed=st.integers(0, 9), count=st.integers(1, 400))
@settings(max_examples=100)
def test_share_of_documents_that_validate(fraction, seed, count):
    chosen = sum(validates(number, fraction, seed) for number in range(count))
    assert chosen <= count * fraction + 1
    assert chosen >= int(count * fraction) * 0.7 - 1  # where 1 / fraction is not whole, two draws may meet


def test_validation_is_drawn_by_seed_and_number_alone():
    draw = [[validates(n, 0.25, seed) for n in range(400)] for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2] and sum(draw[0]) == sum(draw[2]) == 100


def test_trained_tokenizer(here):
    made = growkit.tokenize("books", "data", train_tokenizer=300, val_fraction=0.34)
    tokenizer = transformers.AutoTokenizer.from_pretrained("data/tokenizer")
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
    assert len(tokenizer) == 300 == made.meta["vocab_size"] and tokenizer.eos_token_id == made.meta["eos_id"]
    assert tokenizer.mask_token_id == made.meta["mask_id"] and not made.notes
    # what transformers 4 needs: a class that it has, and a length that fits in 32 bits
    settings = json.loads(Path("data/tokenizer/tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast" and settings["model_max_length"] == 2**20
    assert tokenizer.unk_token == tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer("a", padding="max_length", max_length=4)["attention_mask"] == [1, 0, 0, 0]
    shown = tokenizer.decode(ids_of(split="val")).split(tokenizer.eos_token)[:-1]
    originals = [path.read_text("utf-8") for path in sorted(Path("books").iterdir())]
    assert len(shown) == 2 and set(shown) < set(originals), "every byte comes back"
    # the same words without those that validate make the same tokenizer, and the same tokens
    for number, original in enumerate(originals):
        if original in shown:
            os.rename(f"books/{number}.txt", f"{number}.txt")
    again = growkit.tokenize("books", "again", train_tokenizer=300)
    assert again.meta["tokenizer"] == made.meta["tokenizer"] and ids_of() == ids_of("again")
    # and a dataset that holds its tokenizer can be named for it
    other = growkit.tokenize("books", "other", "data")
    assert other.meta["tokenizer"] == made.meta["tokenizer"] and ids_of() == ids_of("other")
    few = growkit.tokenize("books", "few", train_tokenizer=50_000)
    assert few.notes and few.notes[0].startswith(f"the text gave a vocabulary of {few.meta['vocab_size']:,}")


def test_large_vocabularies_take_four_bytes(here):
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(70_000)} | {"[UNK]": 70_000}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    wrap(words).save_pretrained("large")
    Path("a.txt").write_text("w69999 w3")
    made = growkit.tokenize("a.txt", "data", "large")
    assert made.meta["dtype"] == "uint32" and ids_of() == [69_999, 3]
    assert made.notes[0].startswith("the tokenizer has neither an end-of-text nor a separator token")


def test_a_separator_ends_documents_where_nothing_else_does(here):
    wrap(TOKENIZERS["bert"], sep_token="[SEP]", mask_token="[MASK]", unk_token="[UNK]").save_pretrained("bert")
    made = growkit.tokenize("books", "data", "bert")
    assert made.meta["eos_id"] == 1 == ids_of()[-1] and made.meta["mask_id"] == 2 and not made.notes


def test_a_tokenizer_that_cuts_off_does_not(here):
    tokenizer = Tokenizer.from_file("tok/tokenizer.json")
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding()
    tokenizer.save("tok/tokenizer.json")
    growkit.tokenize("books", "data", "tok")
    assert len(ids_of()) > 10_000


TEXTS = [  # what is there, arguments, part of the sentence
    (lambda: None, "nosuch.txt", "'nosuch.txt' does not exist; give text files, folders or patterns"),
    (lambda: None, "nosuch/*.txt", "'nosuch/*.txt' holds no .txt, .jsonl, .jsonl.gz, .parquet file"),
    (lambda: put("a/b.pdf", "x"), "a", "'a' holds no .txt, .jsonl"),
    (lambda: put("a.pdf", "x"), "a.pdf", "'a.pdf' is no text that growkit reads: .txt, .jsonl"),
    (lambda: put("a.txt", ""), "a.txt", "there is no text in a.txt"),
    (lambda: put("a.txt", " \n \n"), "a.txt", "there is no text in a.txt"),
    (lambda: put("a.txt", b"abc\xff"), "a.txt", "byte 3 of 'a.txt' is not UTF-8; convert it"),
    (lambda: put("a.txt", "é".encode() * 200_000 + b"\xc3"), "a.txt", "byte 400000 of 'a.txt' is not UTF-8"),
    (lambda: put("a.jsonl", '{"text": "a"}\n\n{"text": '), "a.jsonl", "line 3 of 'a.jsonl' is no valid JSON (Expecting"),
    (lambda: put("a.jsonl", '{"body": "a", "n": 1}'), "a.jsonl", "line 1 of 'a.jsonl' has no key 'text'; it has 'body', 'n': name"),
    (lambda: put("a.jsonl", "[1]"), "a.jsonl", "line 1 of 'a.jsonl' is a list; each line should be a JSON object"),
    (lambda: put("a.jsonl", '{"text": 5}'), "a.jsonl", "line 1 of 'a.jsonl' has a int under 'text', not text"),
    (lambda: put("a.jsonl", '{"text": "\\ud800"}'), "a.jsonl", "line 1 of 'a.jsonl' holds half a character"),
    (lambda: put("a.jsonl", b'{"text": "\xff"}'), "a.jsonl", "line 1 of 'a.jsonl' is not UTF-8"),
    (lambda: put("a.jsonl", '{"text": ""}'), "a.jsonl", "there is no text in a.jsonl"),
    (lambda: put("a.jsonl.gz", b"no"), "a.jsonl.gz", "'a.jsonl.gz' is no sound gzip file"),
    (lambda: put("a.jsonl.gz", gzip.compress(b'{"text": "a"}' * 99)[:-9]), "a.jsonl.gz", "'a.jsonl.gz' is no sound gzip file"),
    (lambda: None, "books --val-fraction 1", "--val-fraction 1.0 should be from 0 to below 1"),
    (lambda: None, "books --val-fraction -0.1", "--val-fraction -0.1 should be from 0"),
    (lambda: None, "books --val-fraction nan", "--val-fraction nan should be from 0"),
    (lambda: None, "books --val-fraction 0.01", "--val-fraction 0.01 of 6 documents leaves none for val; give 0.17 or more, or"),
    (lambda: None, "books/1.txt --val-fraction 0.999", "of 1 documents leaves none for train; name files with --val"),
    (lambda: None, "books --val-fraction 0.5 --val books", "--val-fraction and --val both say what validates; give one"),
    (lambda: None, "books --val books/1.txt", "books/1.txt' is both for training and for validation"),
    (lambda: put("a.txt", ""), "books --val a.txt", "there is no text in what --val names"),
    (lambda: put("a.txt", ""), "a.txt --val books", "there is no text in a.txt"),
    (lambda: None, "books --val nosuch", "'nosuch' does not exist"),
    (lambda: None, "books -o books/data", "is inside the source 'books'"),
    (lambda: None, "books -o .", "is or contains the source"),
    (lambda: thesis("out"), "books -o out --force", "output 'out' is no dataset of growkit's alone, so --force will not"),
    (lambda: None, "books -o tok --force", "output 'tok' is or contains the source"),
]  # fmt: skip


@pytest.mark.parametrize("prepare, args, says", cases(TEXTS))
def test_text_that_cannot_be(here, prepare, args, says):
    prepare()
    out = [] if "-o" in args else ["-o", "data"]
    refused("tokenize", *args.split(), *out, "--tokenizer", "tok", says=says)


VOCABULARIES = [
    ([], "say which tokenizer: --tokenizer CKPT or a new one with --train-tokenizer N"),
    (["--tokenizer", "tok", "--train-tokenizer", "300"], "say which tokenizer"),
    (["--train-tokenizer", "257"], "--train-tokenizer 257 is too few: 256 bytes and 2 special tokens make 258"),
    (["--tokenizer", "nosuch"], "'nosuch' does not exist; give a folder with a tokenizer, or a hub id"),
    (["--tokenizer", "books"], "'books' has no tokenizer: expected tokenizer.json"),
    (["--tokenizer", "broken"], "the tokenizer of 'broken' does not load: "),
]


@pytest.mark.parametrize("options, says", cases(VOCABULARIES))
def test_tokenizer_that_cannot_be(here, options, says):
    put("broken/tokenizer.json", "{}")
    refused("tokenize", "books", *options, "-o", "data", says=says)


def test_force_replaces_a_dataset_and_nothing_else(here):
    tokenize = ["tokenize", "books", "--tokenizer", "tok", "-o", "data"]
    assert run(*tokenize, "--val-fraction", "0.5").exit_code == 0
    refused(*tokenize, says="output 'data' exists; choose another with -o, or replace it with --force")
    put("data/notes.txt", "mine")
    refused(*tokenize, "--force", says="output 'data' is no dataset of growkit's alone")
    os.remove("data/notes.txt")
    assert run(*tokenize, "--force").exit_code == 0 and not Path("data/val.bin").exists()
    put("model/model.safetensors", "x")
    put("model/config.json", "{}")
    refused(*tokenize[:-1], "model", "--force", says="output 'model' is no dataset")
    with pytest.raises(RequestError, match="'data' is no checkpoint, so --force will not delete it"):
        _init_over("data")


def _init_over(out):
    put("small.json", json.dumps(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9).to_dict()))
    config = json.loads(Path("small.json").read_text()) | {"architectures": ["GPT2LMHeadModel"]}
    put("small.json", json.dumps(config))
    growkit.init("small.json", out, force=True)


CAUGHT = """
import growkit.data.tokenize
from growkit.data import text

growkit.data.tokenize.BATCH_CHARACTERS = 5000
plain = text._plain

def plain_until(path, *more):
    if path.name == "4.txt":
        halt()
    yield from plain(path, *more)

text._plain = plain_until
"""


@pytest.mark.parametrize(
    ("kind", "workers", "start"),
    [(signal.SIGINT, "1", forked), (signal.SIGINT, "2", subprocess.Popen), (signal.SIGKILL, "2", forked)],
)
def test_stopped_run_leaves_nothing_that_looks_whole(here, kind, workers, start):
    command = ["tokenize", "books", "--tokenizer", "tok", "-o", "data", "--workers", workers]
    with halted(CAUGHT, *command, start=start) as process:
        said = ended(process, kind)
    assert not Path("data").exists()
    if kind == signal.SIGINT:
        assert process.returncode == 130 and said.strip() == "growkit: interrupted; nothing was kept"
        assert sorted(os.listdir()) == ["books", "tok"]
    else:
        assert not Path("data.partial/meta.json").exists()
        put("data.partial/meta.json", "{}")
        with pytest.raises(CheckpointError, match="is unfinished"):
            open_tokens("data.partial")
    assert run(*command).exit_code == 0 and sorted(os.listdir()) == ["books", "data", "tok"]


def test_memory_does_not_grow_with_the_text(here):
    """The most that a process has held does not grow when ten times the text comes after it."""
    line = json.dumps({"text": EXCERPT.read_text("utf-8")[:4000]}) + "\n"
    code = "import growkit; "
    for megabytes in (1, 10):
        Path(f"{megabytes}.jsonl").write_text(line * (megabytes * 10**6 // len(line)))
        code += f"growkit.tokenize('{megabytes}.jsonl', 'data{megabytes}', 'tok', workers=1); "
        code += "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))); "
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    assert second < first + 5, "MB"


def test_bare_files_of_every_flavour_read_back_equal(tmp_path):
    ids = np.random.default_rng(0).integers(0, 50_000, 1000)
    flavours = {
        "nanogpt": ids.astype("<u2").tobytes(),
        "llmc-gpt2": header(20240520, 1, 1000) + ids.astype("<u2").tobytes(),
        "llmc-llama3": header(20240801, 7, 1000) + ids.astype("<u4").tobytes(),
        "automodel-2": header(278895051, 1, 1000, 2) + ids.astype("<u2").tobytes(),
        "automodel-4": header(278895051, 1, 1000, 4) + ids.astype("<u4").tobytes(),
    }
    for name, content in flavours.items():
        (tmp_path / f"{name}.bin").write_bytes(content)
        tokens = open_tokens(tmp_path / f"{name}.bin")
        assert np.array_equal(tokens.ids[:], ids) and len(tokens) == 1000 and tokens.text_bytes is None, name


BARE = [
    (b"", "holds no whole number of uint16 tokens"),
    (b"abc", "holds no whole number of uint16 tokens"),
    (header(20240520, 1, 5) + bytes(8), "has 4 tokens, its header says 5; fetch or make it again"),
    (header(20240520, 2, 4) + bytes(8), "has the magic 20240520 but not the header that goes with it"),
    (header(278895051, 1, 4, 3) + bytes(8), "has the magic 278895051 but not the header"),
    (header(20240801, 7, 4) + bytes(9), "holds no whole number of uint32 tokens"),
    (header(20240520, 1, 0), "holds no whole number of uint16 tokens"),
]


@pytest.mark.parametrize("content, says", cases(BARE))
def test_damaged_bare_files(tmp_path, content, says):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        open_tokens(tmp_path / "a.bin")
    assert says in str(error.value) and len(MAGIC) == 3


METAS = [
    ({"format": 2}, "is no dataset: it has no meta.json of format 1"),
    ({"dtype": "float64"}, "data/meta.json' should have dtype as one of uint16, uint32, not 'float64'"),
    ({"splits": []}, "data/meta.json' should have splits as an object"),
    ({"splits": {"train": {"tokens": 3}}}, "tokens, meta.json says 3; make the dataset again"),
]


@pytest.mark.parametrize("changes, says", cases(METAS))
def test_damaged_datasets(here, changes, says):
    growkit.tokenize("books", "data", "tok")
    with pytest.raises(CheckpointError, match="has no split 'val'; it has train; growkit tokenize makes val"):
        open_tokens("data", "val")
    meta = json.loads(Path("data/meta.json").read_text())
    put("data/meta.json", json.dumps(meta | changes))
    with pytest.raises(CheckpointError) as error:
        open_tokens("data")
    assert says in str(error.value)


@given(lengths=st.lists(st.integers(0, 20), max_size=30))
def test_written_then_read_is_equal(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("data")
    writer = TokenWriter(folder, "train", np.dtype("<u2"))
    for number, length in enumerate(lengths):
        writer.add([number] * length, length)
    assert writer.close() == {"tokens": sum(lengths), "documents": len(lengths), "text_bytes": sum(lengths)}
    starts = np.load(folder / "train.idx.npy")
    assert starts.tolist() == [0, *np.cumsum(lengths, dtype=int)] and starts.dtype == np.int64
    assert np.fromfile(folder / "train.bin", "<u2").tolist() == [n for n, k in enumerate(lengths) for _ in range(k)]


# batches


def batches(count=1000, length=16, size=12, **more):
    return Batches(tokens=np.arange(count, dtype=np.uint16), length=length, size=size, **more)


@given(size=st.sampled_from([4, 12, 60]), step=st.integers(0, 50), seed=st.integers(0, 3), masked=st.booleans())
@settings(max_examples=60)
def test_a_batch_is_the_same_for_any_number_of_processes(size, step, seed, masked):
    more = dict(size=size, seed=seed, masked=(999, 1000) if masked else None)
    whole = batches(**more).rows(step, 0, size)
    for world in (2, 4):
        share = size // world
        parts = [batches(**more).rows(step, rank * share, share) for rank in range(world)]  # each a process of its own
        for side in ("inputs", "labels", "places"):
            assert torch.equal(getattr(whole, side), torch.cat([getattr(part, side) for part in parts]))


@given(count=st.integers(40, 600), length=st.integers(1, 30), size=st.integers(1, 50), masked=st.booleans())
@settings(max_examples=100)
def test_each_window_is_seen_once_in_an_epoch_and_the_order_changes(count, length, size, masked):
    data = batches(count, length, size, masked=(0, 9) if masked else None)
    windows = (count - (not masked)) // length
    steps = -(-3 * windows // size)
    seen = [place for step in range(steps) for place in data.drawn(step, 0, size)][: 3 * windows]
    epochs = [seen[n * windows : (n + 1) * windows] for n in range(3)]
    assert all(sorted(epoch) == list(range(windows)) for epoch in epochs)
    assert windows < 10 or epochs[0] != epochs[1] != epochs[2]
    assert data.drawn(steps - 1, 0, size) == batches(count, length, size, masked=data.masked).drawn(steps - 1, 0, size)


def test_a_causal_window_predicts_the_next_token():
    batch = batches().rows(3, 0, 12)
    inputs, labels = batch.inputs, batch.labels
    assert torch.equal(batch.places, inputs) and batch.predicted == 12 * 16  # token n is n
    assert inputs.shape == labels.shape == (12, 16) and (labels == inputs + 1).all()
    assert (inputs[:, 0] % 16 == 0).all()
    assert not np.array_equal(inputs, batches(seed=1).rows(3, 0, 12).inputs)


def test_masks_are_fifteen_percent_of_which_eighty_ten_ten_and_reproducible():
    data = Batches(tokens=np.full(64_000, 7, np.uint16), length=64, size=500, masked=(9, 1000))
    inputs, labels = data.rows(0, 0, 500).inputs, data.rows(0, 0, 500).labels
    chosen = labels != IGNORED
    assert (chosen.sum(1) == round(0.15 * 64)).all() and (labels[chosen] == 7).all() and (inputs[~chosen] == 7).all()
    shares = [(inputs[chosen] == kind).double().mean().item() for kind in (9, 7)]
    assert abs(shares[0] - 0.8) < 0.02 and abs(shares[1] - 0.1) < 0.02  # the other tenth is random
    assert np.array_equal(
        inputs, Batches(tokens=data.tokens, length=64, size=500, masked=(9, 1000)).rows(0, 0, 500).inputs
    )
    assert not np.array_equal(chosen, data.rows(2, 0, 500).labels != IGNORED), "new masks in every epoch"
    assert abs(chosen.double().mean(0) - 0.15).max() < 0.06, "every position alike"


def test_too_few_tokens():
    with pytest.raises(RequestError, match="16 tokens make no window of 16; give more text or a smaller --seq-len"):
        batches(16)
    assert batches(17).windows == 1 and batches(16, masked=(0, 9)).windows == 1


def test_ids_are_read_by_place(tmp_path):
    """As an array has them; a file that becomes shorter, or is none, is a sentence."""
    path = tmp_path / "ids.bin"
    for dtype, offset in (("<u2", 0), ("<u4", 1024)):
        ids = np.random.default_rng(0).integers(0, 1 << 16, 1000).astype(dtype)
        path.write_bytes(bytes(offset) + ids.tobytes())
        stored = StoredIds(path, np.dtype(dtype), offset)
        assert len(stored) == 1000 and stored.max() == ids.max()
        for first, last in ((0, 1), (0, 1000), (7, 400), (990, 2000), (5, 5), (1000, 1001)):
            assert np.array_equal(stored[first:last], ids[first:last]) and stored[first:last].dtype == ids.dtype
        assert np.array_equal(stored[:], ids) and np.array_equal(stored[-3:], ids[-3:])
        os.truncate(path, offset + 500 * ids.itemsize - 1)
        assert np.array_equal(stored[:499], ids[:499])
        for first in (499, 700):
            with pytest.raises(CheckpointError, match=r"ids\.bin' became shorter while it was read"):
                stored[first : first + 10]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="a pipe and no file"):
        StoredIds(path, np.dtype("<u2"))
