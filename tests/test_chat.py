"""Conversations become a chat dataset whole, or one sentence with the line; written then read is equal."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import chats
import numpy as np
import pytest
from refusing import cases, refused, run, tree
from texts import put

import growkit
from growkit.data.chats.chat_template import open_template
from growkit.data.chats.conversations import conversation
from growkit.data.tokens import open_tokens
from growkit.errors import CheckpointError

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}
CHAT = {"messages": [HI, HELLO]}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"place": "here"}'}}


def lines(name: str, *objects) -> str:
    """A file of JSON lines; text is a line as it stands."""
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in objects) + "\n"
    put(name, gzip.compress(content.encode()) if name.endswith(".gz") else content)
    return name


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a tokenizer that has a template, one that has none, and conversations."""
    monkeypatch.chdir(tmp_path)
    made = chats.tokenizer("chatml")
    made.save_pretrained("tok")
    made.chat_template = None
    made.save_pretrained("bare")
    lines("chat.jsonl", CHAT, "", {"messages": [HI, HELLO, HI, HELLO]})
    return tmp_path


def told(split: str = "train", data: str = "data") -> list[tuple[list[int], list[int]]]:
    """(ids, which are learned) of each conversation of a dataset."""
    tokens = open_tokens(data, split)
    starts = tokens.learned.starts.tolist()
    return [(tokens.ids[a:b].tolist(), tokens.learned.marks[a:b].tolist()) for a, b in pairwise(starts)]


def expected(*objects: dict) -> list[tuple[list[int], list[int]]]:
    reading = chats.answers("chatml")
    answered = [reading.of(conversation(content, "a line")) for content in objects]
    return [(one.ids, list(one.learned)) for one in answered]


def test_written_then_read_is_equal(here):
    lines("val.jsonl.gz", CHAT)
    made = growkit.tokenize("chat.jsonl", "data", "tok", chat=True, val="val.jsonl.gz")
    two = {"messages": [HI, HELLO, HI, HELLO]}
    assert told() == expected(CHAT, two) and told("val") == expected(CHAT)
    tokens = open_tokens("data")
    meta = json.loads(Path("data/meta.json").read_text())
    assert tokens.is_chat and meta == made.meta and not made.notes
    template = open_template(chats.tokenizer("chatml"), Path(), "tok", None)
    assert meta["chat"] == {"template": template.hash, "answers": 4}
    assert meta["splits"]["train"] == {
        "tokens": len(tokens), "documents": 2, "learned": int(tokens.learned.marks[:].sum()),
        "text_bytes": sum(len(template.text(one["messages"], ()).encode()) for one in (CHAT, two)),
    }  # fmt: skip
    assert tokens.ids[-2:].tolist() == told()[0][0][-2:], "no end of text behind a template's own end of turn"


def test_the_forms_say_the_same(here):
    three = [HI, HELLO, {"role": "user", "content": "And?\n\nMore"}, {"role": "assistant", "content": "No."}]
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo there."}]
    forms = [
        CHAT,
        {"messages": [{**HI, "name": None}, {"role": "assistant", "content": parts}]},
        {"prompt": "Hi", "completion": "Hello there."},
        {"prompt": [HI], "completion": [HELLO], "id": 7},
        {"instruction": "Hi", "input": "", "output": "Hello there."},
        {"instruction": "Hi", "output": "Hello there."},
    ]
    growkit.tokenize(lines("forms.jsonl", *forms), "data", "tok", chat=True)
    assert told() == expected(CHAT) * 6
    last = [  # the same text, of which the last answer alone is learned
        {"prompt": three[:3], "completion": "No."},
        {"messages": [HI, {**HELLO, "weight": 0}, *three[2:]]},
    ]
    growkit.tokenize(lines("last.jsonl", *last), "last", "tok", chat=True)
    (whole,) = expected({"messages": three})
    for ids, learned in told(data="last"):
        answers = np.flatnonzero(np.diff([0, *whole[1]]) == 1)
        assert len(answers) == 2 and ids == whole[0] and not any(learned[: answers[1]])
        assert learned[answers[1] :] == whole[1][answers[1] :]
    with_input = {"instruction": "And?", "input": "More", "output": "No."}
    growkit.tokenize(lines("input.jsonl", with_input), "input", "tok", chat=True)
    assert told(data="input") == expected({"messages": three[2:]})


def test_tasks_are_domains(here):
    lines("b.jsonl", *[CHAT] * 3)
    made = growkit.tokenize(["short=chat.jsonl", "many=b.jsonl"], "data", "tok", chat=True)
    tokens = open_tokens("data")
    assert tokens.domains.of(tokens.learned.starts[:-1]).tolist() == [0, 0, 1, 1, 1]
    counts = made.meta["splits"]["train"]["domains"]
    assert [counts[name]["documents"] for name in ("short", "many")] == [2, 3]
    assert sum(counts[name]["learned"] for name in counts) == tokens.learned.marks[:].sum()


def test_a_template_of_a_file_comes_along(here):
    granite = (chats.FOLDER / "granite.jinja").read_text("utf-8")
    put("own.jinja", granite)
    made = growkit.tokenize("chat.jsonl", "data", "bare", chat=True, template="own.jinja")
    assert Path("data/chat_template.jinja").read_text("utf-8") == granite
    assert [note.split(",")[0] for note in made.notes] == [
        "1 answers are ended by no token",
        "the end-of-text token was added to 2 conversations",
    ]
    ids, learned = told()[0]
    text = chats.tokenizer("chatml").decode(ids)
    assert text.endswith("Hello there.<|end_of_text|><|im_end|>") and learned[-1] == 1
    again = run(
        "tokenize", "chat.jsonl", "--chat", "--tokenizer", "bare", "--template", "chatml", "-o", "data", "--force"
    )
    assert again.exit_code == 0, again.output
    assert told() == expected(CHAT, {"messages": [HI, HELLO, HI, HELLO]})
    assert "conversations  tokens  learned" in again.stdout


def test_chatml_ends_turns_as_the_tokenizer_ends_texts(here):
    """Where the tokenizer has no token of ChatML's."""
    made = chats.tokenizer("zephyr")
    made.save_pretrained("other")
    growkit.tokenize("chat.jsonl", "data", "other", chat=True, template="chatml")
    ids, learned = told()[0]
    assert made.decode([i for i, own in zip(ids, learned) if own]).strip() == "Hello there.</s>"


def test_what_a_person_should_know(here):
    """What is odd and no fault is told."""
    made = chats.tokenizer("qwen")
    made.save_pretrained("qwen")
    put("qwen/generation_config.json", json.dumps({"eos_token_id": [3]}))
    own = "{{ strftime_now('%Y') }}" + (chats.FOLDER / "chatml.jinja").read_text("utf-8")
    put("dated.jinja", own)
    tools = {"messages": [HI, HELLO], "tools": [{"type": "function", "function": {"name": "f"}}]}
    notes = growkit.tokenize(lines("t.jsonl", tools), "data", "qwen", chat=True, template="dated.jinja").notes
    end = made.convert_tokens_to_ids("<|im_end|>")
    assert [note.split(";")[0] for note in notes] == [
        f"1 answers end with '<|im_end|>' (id {end}), at which generation does not stop: generation_config.json has [3] as"
        " eos_token_id",
        "1 conversations have tools that the chat template does not show",
        "the chat template writes the date of today, so the same conversations give other tokens tomorrow",
    ]


LINES = [
    ("{", "line 2 of 'x.jsonl' is no valid JSON (Expecting property name enclosed in double quotes, character"),
    ("[1]", "line 2 of 'x.jsonl' is a list; each line should be a JSON object"),
    ('{"messages": ' + "[" * 300 + "]" * 300 + "}", "line 2 of 'x.jsonl' is nested more than 200 deep"),
    ({"text": "Hi"}, "line 2 of 'x.jsonl' is no conversation: it should have 'messages', 'prompt' and 'completion', or"),
    ({"messages": []}, "should have a list of messages under 'messages', not []"),
    ({"prompt": 3, "completion": "x"}, "should have text or a list of messages under 'prompt', not 3"),
    ({"instruction": "x", "output": None}, "should have text under 'output', not None"),
    ({"messages": [HI]}, "line 2 of 'x.jsonl' has no turn of the assistant, so there is nothing to learn"),
    ({"messages": [HELLO, HI]}, "turn 1 (assistant) comes first; it should answer something"),
    ({"messages": [HI, {"role": "bot", "content": "x"}]}, "turn 2 should be a message whose role is one of system, developer"),
    ({"messages": [HI, "x"]}, "turn 2 should be a message whose role is one of"),
    ({"messages": [HI, {"role": "assistant", "content": " \n"}]}, "turn 2 is an empty answer"),
    ({"messages": [HI, {"role": "assistant"}]}, "turn 2 is an empty answer"),
    ({"messages": [{"role": "user"}, HELLO]}, "turn 1 (user) has no content"),
    ({"messages": [HI, HELLO, {"role": "tool", "content": "x"}]}, "turn 3 (tool) follows no call of a tool"),
    ({"messages": [HI, {**HELLO, "weight": 2}]}, "turn 2 should have a weight of 0 or 1, not 2"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, HELLO]}, "a list of parts of type text, not"),
    ({"messages": [HI, {"role": "assistant", "tool_calls": [{}]}]}, "should call tools by 'function' with a 'name', not {}"),
    ({"messages": [HI, {"role": "assistant", "tool_calls": "x"}]}, "should have a list of objects under 'tool_calls'"),
    ({"messages": [HI, HELLO], "tools": [3]}, "should have a list of objects under 'tools', not [3]"),
    (
        {"messages": [HI, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        "turn 2 calls 'f' with arguments that are no JSON",
    ),
    (
        {"messages": [HI, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]},
        "turn 2 should call 'f' with an object, not [1]",
    ),
    ({"messages": [HI, {"role": "assistant", "tool_calls": [CALL]}]}, "turn 2 (assistant) is not shown by the chat template"),
    ('{"prompt": "\\ud800", "completion": "x"}', "line 2 of 'x.jsonl' holds half a character"),
]  # fmt: skip


@pytest.mark.parametrize("line, says", cases(LINES))
def test_lines_that_cannot_be(here, line, says):
    lines("x.jsonl", CHAT, line)
    refused("tokenize", "x.jsonl", "--chat", "--tokenizer", "tok", "-o", "data", says=says)


TEMPLATES = [  # what a template makes of a conversation -> why its answers cannot be told
    ("{{ messages[0].content }}", "turn 2 (assistant) is not shown by the chat template, whatever it says"),
    ("{% for m in messages|reverse %}{{ m.content }}{% endfor %}", "turn 2 (assistant) cannot be told from what is before it"),
    ("{{ raise_exception('not today') }}", "the chat template refuses it: not today"),
    ("{% for", "the chat template refuses it: "),
    ("{{ messages[0].__class__.mro() }}", "the chat template refuses it: access to attribute '__class__'"),
    ("{{ 1 // 0 }}", "the chat template refuses it: integer division or modulo by zero"),
    (
        "{% for m in messages %}{{ m.content + '.' }}{% endfor %}{% if add_generation_prompt %}Now:{% endif %}",
        "turn 2 (assistant) begins otherwise than the chat template's own prompt for an answer, '.Now:'",
    ),
    (
        "{% if messages|length < 2 %}{{ raise_exception('too short') }}{% endif %}{{ messages[0].content + messages[1].content }}",
        "turn 2 (assistant) cannot be told from what is around it: without that the chat template refuses it (too short)",
    ),
    ("{% generation %}x{% endgeneration %}{{ messages[1].content }}", "has no token that the chat template lets the assistant say"),
]  # fmt: skip


@pytest.mark.parametrize("template, says", cases(TEMPLATES))
def test_templates_that_cannot_be_told(here, template, says):
    put("own.jinja", template)
    args = ["chat.jsonl", "--chat", "--tokenizer", "tok", "--template", "own.jinja", "-o", "data"]
    assert "line 1 of 'chat.jsonl'" in refused("tokenize", *args, says=says)


OPTIONS = [
    (
        "chat.jsonl --chat --tokenizer bare",
        "the tokenizer of 'bare' has no chat template; give one with --template FILE",
    ),
    (
        "chat.jsonl --chat --train-tokenizer 300",
        "--chat needs the tokenizer of the model that learns: --tokenizer CKPT",
    ),
    ("chat.jsonl --tokenizer tok --template chatml", "--template is for conversations; add --chat, or leave it out"),
    ("chat.jsonl --chat --tokenizer tok --text-key body", "--text-key names the text of plain JSON lines"),
    (
        "chat.jsonl --chat --tokenizer tok --template absent",
        "--template: cannot read 'absent': No such file or directory",
    ),
    ("chat.jsonl --chat --tokenizer tok --template tok", "--template: 'tok' is a folder and no file; give a file"),
    ("--dataset tok --chat --tokenizer tok", "--chat reads JSON lines, and --dataset is for text"),
    ("a.txt --chat --tokenizer tok", "'a.txt' holds no conversations: --chat reads .jsonl and .jsonl.gz"),
]


@pytest.mark.parametrize("args, says", cases(OPTIONS))
def test_chats_that_cannot_be_asked_for(here, args, says):
    put("a.txt", "text")
    refused("tokenize", *args.split(), "-o", "data", says=says)


DAMAGE = [
    (lambda: put("data/train.learned", Path("data/train.learned").read_bytes()[:-1]), "train.learned' has 77 entries where 78"),
    (lambda: put("data/train.learned", b"\2" * 78), "train.learned' should hold 0 and 1 alone, not 2"),
    (lambda: np.save("data/train.idx.npy", np.array([0, 90, 78])), "should say where each conversation starts, from 0 to 78"),
    (lambda: np.save("data/train.idx.npy", np.array([0, 1 << 62, -(1 << 63), 78])), "has 4 entries where 3 should be"),
    (lambda: Path("data/train.learned").unlink(), "cannot read 'data/train.learned'"),
    (lambda: put("data/meta.json", Path("data/meta.json").read_text().replace('"template": "', '"template": "x')), "SHA-256"),
]  # fmt: skip


@pytest.mark.parametrize("damage, says", cases(DAMAGE))
def test_damaged_chat_datasets(here, damage, says):
    growkit.tokenize("chat.jsonl", "data", "tok", chat=True)
    assert len(open_tokens("data")) == 78, "what the sentences below speak of"
    damage()
    with pytest.raises(CheckpointError) as error:
        learned = open_tokens("data").learned
        learned.counts(learned.starts[:-1], learned.starts[1:])
    assert says in str(error.value)


def test_counts_by_place(tmp_path, monkeypatch):
    """In pieces of any size as in one."""
    from growkit.data import learned as module
    from growkit.data.tokens import TokenWriter

    draws = np.random.default_rng(0)
    writer = TokenWriter(tmp_path, "train", np.dtype("<u2"), chat=True)
    marks = [draws.integers(0, 2, length).astype(np.uint8) for length in draws.integers(1, 9, 50)]
    for own in marks:
        writer.add_stored(bytes(2 * len(own)), 0, 0, own.tobytes())
    total = writer.close()
    found = module.Learned(tmp_path, "train", 50, total["tokens"])
    firsts, lasts = found.starts[:-1] + 1, found.starts[1:]
    for at_once in (1, 7, 1000):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        tokens, answers = found.counts(firsts, lasts)
        assert tokens.tolist() == [int(own[1:].sum()) for own in marks]
        assert answers.tolist() == [int((np.diff(own.astype(int)) == 1).sum()) for own in marks]
        _, answers = found.counts(found.starts[:-1], lasts)
        assert answers.tolist() == [int((np.diff(own.astype(int), prepend=0) == 1).sum()) for own in marks]
    assert total["learned"] == sum(int(own.sum()) for own in marks)


def test_force_replaces_a_chat_dataset(here):
    args = ["tokenize", "chat.jsonl", "--chat", "--tokenizer", "tok", "-o", "data"]
    assert run(*args, "--template", "chatml").exit_code == 0
    before = tree("data")
    assert run(*args, "--force").exit_code == 0 and before.keys() - tree("data").keys() == {"data/chat_template.jinja"}
