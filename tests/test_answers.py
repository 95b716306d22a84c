"""What is learned of a conversation is the assistant's turns alone, in templates of ten shapes; what cannot be told is
refused."""

import copy
from random import Random

import chats
import pytest

from growkit.data.conversations import conversation

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
    """(text, ids, which are learned) by hand: a token is the assistant's where its first character is."""
    parts = chats.pieces(name, turns, tools)
    text, told = "".join(part for part, _ in parts), [own for part, own in parts for _ in part]
    encoding = made.backend_tokenizer.encode(text, add_special_tokens=False)
    return text, encoding.ids, [int(told[first]) for first, _ in encoding.offsets]


@pytest.mark.parametrize("name", chats.SPECIAL)
def test_learned_is_what_the_assistant_says(name):
    made = chats.tokenizer(name)
    reading, draw = chats.answers(name, made), Random(name)
    for number in range(60):
        tools = [TOOL] if name in chats.TOOLS and number % 2 else []
        turns = messages(name, draw, bool(tools))
        text, ids, learned = reference(made, name, turns, tools)
        chat = conversation({"messages": copy.deepcopy(turns), "tools": tools}, f"line {number}")
        found = reading.of(chat)
        assert made.decode(found.ids) == made.decode(ids), (number, turns)
        assert (found.ids, [*found.learned], found.text_bytes) == (ids, learned, len(text.encode())), (number, turns)
        assert sum(learned) < len(learned)
