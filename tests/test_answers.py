"""What is learned of a conversation is the assistant's turns alone, in templates of ten shapes; what cannot be told is
refused."""

import copy
from itertools import groupby
from random import Random

import chats
import pytest

from growkit.data.chats.answers import Answers
from growkit.data.chats.chat_template import ChatTemplate
from growkit.data.chats.conversations import conversation

WORDS = [
    "Hi",
    " there",
    "\n",
    "\n\n",
    "  ",
    "It is a truth",
    " é中",
    "<|im_end|>",
    "</s>",
    "USER:",
    "ASSISTANT: ",
    "<think>",
    "{",
    "1.5",
]
CALL = {"name": "look", "arguments": {"place": "Zürich", "days": 2}}
TOOL = {"type": "function", "function": {"name": "look", "description": "look a thing up", "parameters": {}}}


def said(draw: Random) -> str:
    """Words that are not blank, with anything around them."""
    return "".join(draw.choices(WORDS, k=draw.randint(0, 4))) + "x" + "".join(draw.choices(WORDS, k=draw.randint(0, 2)))


def messages(name: str, draw: Random, tools: bool) -> list[dict]:
    """A conversation of one to four questions."""
    turns = [{"role": "system", "content": said(draw)}] if name in chats.SYSTEMS and draw.random() < 0.5 else []
    for _ in range(draw.randint(1, 4)):
        turns.append({"role": "user", "content": said(draw)})
        for _ in range(draw.randint(0, 2) if tools else 0):
            call = {"type": "function", "function": copy.deepcopy(CALL)}
            own = {"content": said(draw)} if name == "qwen" and draw.random() < 0.5 else {}
            turns.append({"role": "assistant", **own, "tool_calls": [call] * draw.randint(1, 1 + (name == "qwen"))})
            turns.append({"role": "tool", "content": said(draw)})
        words = said(draw).replace("<think>", "") if name in chats.THOUGHTS else said(draw)
        if name in chats.THOUGHTS and draw.random() < 0.6:
            words = f"<think>\nWell, {words}\n</think>\n\n{words}"
        turns.append({"role": "assistant", "content": words})
        if name == "qwen" and draw.random() < 0.2:
            turns[-1]["reasoning_content"] = "Let me see."
    return turns


def reference(made, name: str, turns: list[dict], tools: list[dict]) -> tuple[str, list[int], list[int]]:
    """(text, ids, which are learned) by hand: a token is the assistant's where any of its characters is."""
    parts = chats.pieces(name, turns, tools)
    text, told = "".join(part for part, _ in parts), [own for part, own in parts for _ in part]
    encoding = made.backend_tokenizer.encode(text, add_special_tokens=False)
    return text, encoding.ids, [int(any(told[first:last])) for first, last in encoding.offsets]


@pytest.mark.parametrize("name", chats.SPECIAL)
def test_learned_is_what_the_assistant_says(name):
    made = chats.tokenizer(name)
    reading, draw = chats.answers(name, made), Random(name)
    for number in range(30):
        tools = [TOOL] if name in chats.TOOLS and number % 2 else []
        turns = messages(name, draw, bool(tools))
        text, ids, learned = reference(made, name, turns, tools)
        chat = conversation({"messages": copy.deepcopy(turns), "tools": tools}, f"line {number}")
        found = reading.of(chat)
        assert made.decode(found.ids) == made.decode(ids), (number, turns)
        assert (found.ids, [*found.learned], found.text_bytes) == (ids, learned, len(text.encode())), (number, turns)
        assert sum(learned) < len(learned)


def shown(name: str, *turns: str, template: str | None = None):
    """(pieces of the text between changes of what is learned, what was seen) of a conversation of user and assistant."""
    made = chats.tokenizer(name)
    if template is not None:
        made.chat_template = template
    reading = chats.answers(name, made)
    roles = ("user", "assistant")
    chat = conversation({"messages": [{"role": roles[n % 2], "content": t} for n, t in enumerate(turns)]}, "line 1")
    found = reading.of(chat)
    groups = groupby(zip(found.ids, found.learned), key=lambda pair: pair[1])
    return [(own, made.decode([token for token, _ in group])) for own, group in groups], reading.seen


@pytest.mark.parametrize("inside", [True, False])
def test_marks_of_the_template_say_the_same(inside):
    """Whether the mark ends before or behind the token that ends the turn."""
    marked = (chats.FOLDER / "marked.jinja").read_text("utf-8")
    if inside:
        ends = "{{- '<|im_end|>' + '\\n' }}"
        marked = marked.replace("{% endgeneration %}", "{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}")
        marked = marked.replace(
            "{{ message.content }}{% endif %}", "{{ message.content + '<|im_end|>\\n' }}{% endif %}"
        ).replace(ends, "")
    turns = ["Hi", " Hello\n", "And?", "<|im_end|>No."]
    assert shown("chatml", *turns, template=marked) == shown("chatml", *turns)


def test_turns_that_no_token_ends():
    """What closes them is learned, and an end of text is added behind the last one."""
    template = "{% for m in messages %}{{ ('Q: ' if m.role == 'user' else 'A: ') + m.content + '\n\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
    found, seen = shown("zephyr", "Hi", "the", "And?", "then", template=template)
    assert found == [(0, "Q: Hi\n\nA:"), (1, " the"), (0, "\n\nQ: And?\n\nA:"), (1, " then</s>")]
    assert (seen.joined, seen.ends, seen.added) == (2, {None: 1}, 1), "the space of ' the' is the prompt's"


def test_turns_that_the_next_one_ends():
    """As GLM's, where generation stops at the token that opens the next turn."""
    template = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    made = chats.tokenizer("phi")
    made.chat_template = template
    stops = frozenset(made.convert_tokens_to_ids(["<end>", "<|user|>"]))
    reading = Answers(ChatTemplate(tokenizer=made, own=None, stops=stops, where="a test"))
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "And?"), ("assistant", "<|user|> No.")]
    found = reading.of(
        conversation({"messages": [{"role": role, "content": words} for role, words in turns]}, "line 1")
    )
    groups = groupby(zip(found.ids, found.learned), key=lambda pair: pair[1])
    assert [(own, made.decode([token for token, _ in group])) for own, group in groups] == [
        (0, "<|user|>Hi<|assistant|>"),
        (1, "Hello<|user|>"),
        (0, "And?<|assistant|>"),
        (1, "<|user|> No.<end>"),
    ]


def test_an_answer_that_begins_within_the_prompts_last_token():
    """It is learned, and told."""
    made = chats.tokenizer("chatml")
    newlines = made.backend_tokenizer.encode("\n\n", add_special_tokens=False).ids
    found, seen = shown("chatml", "Hi", "\n\nHello")
    assert found[1][1].strip("\n") == "Hello<|im_end|>" and seen.joined == (len(newlines) == 1)


def test_what_opens_answers_is_told():
    """What a template's prompt and its text of whole conversations do not share."""
    found, seen = shown("deepseek", "Hi", "Hello")
    assert found[-1] == (1, "Hello<|end▁of▁sentence|>") and seen.opened == "<think>\n"
    plain = (chats.FOLDER / "chatml.jinja").read_text("utf-8").split("{%- if add")[0]
    found, seen = shown("chatml", "Hi", "Hello", template=plain)
    assert found[1] == (1, "<|im_start|>assistant\nHello<|im_end|>") and seen.unasked == "<|im_start|>assistant"
    for name in ("chatml", "mistral", "qwen", "vicuna"):
        seen = shown(name, "Hi", "Hello", "And?", "No.")[1]
        assert (seen.opened, seen.unasked, seen.joined) == ("", "", 0), name
