"""Where the words of each turn stand in the text that a chat template makes of a conversation. Knows templates and
characters; ignorant of tokens.

A template may change any earlier turn once later ones come (Qwen's strips their thoughts, Mistral's moves the system
prompt), so no prefix of a conversation need be a prefix of its text. What one turn says is found by saying something
else there and looking at what changes.
"""

import json
from collections.abc import Sequence
from typing import Any

from growkit.data.chats.chat_template import ChatTemplate
from growkit.data.chats.conversations import Conversation, Message
from growkit.errors import RequestError, reason_of

PRIVATE = range(0xE000, 0xF8FF)  # characters that mean nothing, one of which no text holds

Place = tuple[int, int]  # (first character, the one behind the last)


class Shown:
    """A conversation as its template shows it. text: all of it. Raises RequestError, with line and turn, wherever the
    template does not take what it is asked to show."""

    def __init__(self, template: ChatTemplate, chat: Conversation):
        self._template, self._chat = template, chat
        self._messages = list(chat.messages)
        try:
            self.text = template.text(self._messages, chat.tools)
        except Exception as error:  # a template raises anything
            self.text = self._with_older_calls(error)
        self._mark = chr(next((n for n in PRIVATE if chr(n) not in self.text), PRIVATE[0]))
        self._places: dict[int, Place | None] = {}

    def _with_older_calls(self, error: Exception) -> str:
        """The text by a template that joins what calls of tools hold as text, and content with it, as DeepSeek's
        does."""
        self._messages = [_older_calls(message) for message in self._messages]
        if self._messages != list(self._chat.messages):
            try:
                return self._template.text(self._messages, self._chat.tools)
            except Exception:  # what it says of arguments that are objects is clearer
                pass
        raise RequestError(f"{self._chat.where}: the chat template refuses it: {reason_of(error)}") from None

    def marks(self) -> list[Place] | None:
        """What the template itself marks as the assistant's, None where it marks nothing."""
        try:
            return self._template.marks(self._messages, self._chat.tools)
        except Exception as error:  # as above
            raise RequestError(f"{self._chat.where}: the chat template refuses it: {reason_of(error)}") from None

    def has_tools(self) -> bool:
        """Whether the text says which tools there are."""
        return self._template.text(self._messages, ()) != self.text

    def asks(self, turn: int) -> bool:
        """Whether the template has a prompt that asks for an answer."""
        return self._text(self._messages[:turn], turn, prompting=True) != self._text(self._messages[:turn], turn)

    def place(self, turn: int) -> Place | None:
        """Where the words of a turn stand; None where the text does not depend on them."""
        if turn not in self._places:
            other = self._text(self._changed(turn), turn)
            first = same_start(self.text, other)
            last = len(self.text) - min(same_end(self.text, other), len(self.text) - first)
            self._places[turn] = None if other == self.text else (first, last)
        return self._places[turn]

    def next_words(self, turn: int) -> int:
        """Where the words of the next turn begin that shows any; at the end, where none does."""
        _, last = self.place(turn) or (0, 0)
        later = (self.place(n) for n in range(turn + 1, len(self._messages)))
        return next((place[0] for place in later if place is not None and place[0] >= last), len(self.text))

    def answer_start(self, turn: int) -> tuple[int, str]:
        """(where an answer begins: behind the prompt that asks for it; what that prompt goes on with where this text
        does not)."""
        first, _ = self.place(turn) or (0, 0)
        prompt = self._text(self._messages[:turn], turn, prompting=True)
        if self.text.startswith(prompt) and len(prompt) <= first:
            return len(prompt), ""
        before = self.place(turn - 1)
        if before is None or before[1] > first:
            raise self._chat.refused(
                turn, "cannot be told from what is before it: the chat template shows the turn before otherwise there"
            )
        # the prompt and this text differ earlier; from the words of the turn before on they are alike
        changed = self._text(self._changed(turn - 1)[:turn], turn, prompting=True)
        ending = prompt[len(prompt) - same_end(prompt, changed) :]
        bare = self._text(self._messages[:turn], turn)
        header = len(prompt) - len(bare) if prompt.startswith(bare) else 0
        same = same_start(ending, self.text[before[1] : first])
        if same < len(ending) and same <= len(ending) - header:
            raise self._chat.refused(
                turn, f"begins otherwise than the chat template's own prompt for an answer, {ending[-40:]!r}"
            )
        return before[1] + same, ending[same:]

    def closing(self, turn: int) -> int:
        """Where what closes a turn ends: what follows its words however the conversation goes on."""
        _, last = self.place(turn) or (0, 0)
        alone = self._text(self._messages[: turn + 1], turn)
        changed = self._text(self._changed(turn)[: turn + 1], turn)
        ending = alone[len(alone) - same_end(alone, changed) :]
        return last + same_start(ending, self.text[last:])

    def _changed(self, turn: int) -> list[Message]:
        """The messages, one of which says something else."""
        return [_other_words(m, self._mark) if n == turn else m for n, m in enumerate(self._messages)]

    def _text(self, messages: Sequence[Message], turn: int, prompting: bool = False) -> str:
        try:
            return self._template.text(messages, self._chat.tools, prompting)
        except Exception as error:  # as above
            raise self._chat.refused(
                turn,
                f"cannot be told from what is around it: without that the chat template refuses it ({reason_of(error)})",
            ) from None


def same_start(one: str, other: str) -> int:
    """How many first characters two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def same_end(one: str, other: str) -> int:
    """How many last characters two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        alike = one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]
        low, high = (middle, high) if alike else (low, middle - 1)
    return low


def _other_words(message: Message, mark: str) -> Message:
    """A message with the same form and other words."""
    other = dict(message)
    if message.get("content", "").strip() or "tool_calls" not in message:
        other["content"] = mark
    if "tool_calls" in message:
        other["tool_calls"] = [
            _call_with(call, _as(call["function"]["arguments"], {mark: mark})) for call in message["tool_calls"]
        ]
    return other


def _older_calls(message: Message) -> Message:
    """A message whose tools are called with JSON text, as OpenAI's form has it, beside content, be it none."""
    calls = [_call_with(call, _as("", call["function"]["arguments"])) for call in message.get("tool_calls", ())]
    return {"content": "", **message, "tool_calls": calls} if calls else message


def _call_with(call: dict[str, Any], arguments: Any) -> dict[str, Any]:
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _as(like: Any, value: dict[str, Any]) -> Any:
    """Arguments in the form that others have: text or an object."""
    return json.dumps(value, ensure_ascii=False) if isinstance(like, str) else value
