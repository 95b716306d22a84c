"""Conversations out of JSON lines, in the three forms that people write them in. Knows keys and roles; ignorant of
templates and of tokens.

What is handed on is the form that chat templates are written for: messages with text as content, and tool calls whose
arguments are objects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import shown
from growkit.checkpoint.small_files import check_nested, parse_json
from growkit.data.text import Advance, json_objects
from growkit.errors import RequestError

CHAT_ENDS = (".jsonl", ".jsonl.gz")
ASSISTANT = "assistant"
ROLES = ("system", "developer", "user", ASSISTANT, "tool")
FORMS = "'messages', 'prompt' and 'completion', or 'instruction' and 'output'"

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One line. where: the line and its file, for sentences. tools: what the assistant may call. learned: which turns
    are to be learned, numbers of messages, all of them the assistant's."""

    where: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    learned: tuple[int, ...]

    def refused(self, turn: int, why: str) -> RequestError:
        """What to say of one turn, counted from 0."""
        return RequestError(f"{self.where}: turn {turn + 1} ({self.messages[turn]['role']}) {why}")


def conversations(files: Sequence[Path], advance: Advance = lambda _: None) -> Iterator[Conversation]:
    """The conversations of all files in order. advance: called with numbers of bytes that were read.

    Raises RequestError, with the line, for what is none.
    """
    for path in files:
        for line, content in json_objects(path, advance):
            yield conversation(content, f"{line} of {str(path)!r}")


def conversation(content: dict[str, Any], where: str) -> Conversation:
    """What the object of one line says. Raises RequestError for what is no conversation that can be learned from."""
    try:
        check_nested(content)
    except ValueError as error:
        raise RequestError(f"{where} is {error}; it should be a conversation") from None
    told, learned_from = _turns(content, where)
    messages = tuple(_message(message, number, where) for number, message in enumerate(told))
    learned = tuple(
        number
        for number, (message, own) in enumerate(zip(messages, told))
        if message["role"] == ASSISTANT and number >= learned_from and _weight(own, number, where)
    )
    result = Conversation(where, messages, _tools(content.get("tools"), where), learned)
    _check_order(result)
    return result


def _turns(content: dict[str, Any], where: str) -> tuple[list[Any], int]:
    """(messages of a line, the first that may be learned): of a prompt's own answers nothing is."""
    if "messages" in content:
        return _listed(content["messages"], "messages", "", where), 0
    if "prompt" in content and "completion" in content:
        prompt = _listed(content["prompt"], "prompt", "user", where)
        return prompt + _listed(content["completion"], "completion", ASSISTANT, where), len(prompt)
    if "instruction" in content and "output" in content:
        asked = [content["instruction"], content.get("input") or ""]
        for key, text in zip(("instruction", "input", "output"), (*asked, content["output"])):
            if not isinstance(text, str):
                raise RequestError(f"{where} should have text under {key!r}, not {shown(text)}")
        user = {"role": "user", "content": "\n\n".join(part for part in asked if part)}
        return [user, {"role": ASSISTANT, "content": content["output"]}], 0
    raise RequestError(f"{where} is no conversation: it should have {FORMS}, and has {shown(list(content))}")


def _listed(value: Any, key: str, role: str, where: str) -> list[Any]:
    """Messages as they stand, or text as one of a role."""
    if role and isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        words = "text or " if role else ""
        raise RequestError(f"{where} should have {words}a list of messages under {key!r}, not {shown(value)}")
    return value


def _message(given: Any, number: int, where: str) -> Message:
    """A message as templates expect it: text as content, what is null left out."""
    place = f"{where}: turn {number + 1}"
    if not isinstance(given, dict) or given.get("role") not in ROLES:
        has = given.get("role") if isinstance(given, dict) else given
        raise RequestError(f"{place} should be a message whose role is one of {', '.join(ROLES)}, not {shown(has)}")
    message = {key: value for key, value in given.items() if value is not None and key != "weight"}
    if "content" in message:
        message["content"] = _text(message["content"], place)
    if "tool_calls" in message:
        message["tool_calls"] = [
            _call(call, place) for call in _list_of_objects(message["tool_calls"], "tool_calls", place)
        ]
    if not message.get("content", "").strip() and not message.get("tool_calls"):
        if message["role"] == ASSISTANT:
            raise RequestError(f"{place} is an empty answer; leave the conversation out, or end it before")
        if message["role"] != "tool" and "content" not in message:
            raise RequestError(f"{place} ({message['role']}) has no content")
    return message


def _text(content: Any, place: str) -> str:
    """The text of a content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RequestError(
                f"{place} should have text as content, or a list of parts of type text, not {shown(part)}"
            )
    return "".join(part["text"] for part in parts)


def _call(call: dict[str, Any], place: str) -> dict[str, Any]:
    """A tool call, its arguments an object; OpenAI writes them as JSON text."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RequestError(f"{place} should call tools by 'function' with a 'name', not {shown(call)}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments or "{}")
        except ValueError as error:
            raise RequestError(
                f"{place} calls {shown(function['name'])} with arguments that are no JSON ({error})"
            ) from None
    if not isinstance(arguments, dict):
        raise RequestError(f"{place} should call {shown(function['name'])} with an object, not {shown(arguments)}")
    return {**call, "function": {**function, "arguments": arguments}}


def _tools(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    return tuple(_list_of_objects(value, "tools", where)) if value is not None else ()


def _list_of_objects(value: Any, key: str, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RequestError(f"{place} should have a list of objects under {key!r}, not {shown(value)}")
    return value


def _weight(given: Message, number: int, where: str) -> int:
    """Whether an answer is to be learned, which OpenAI's form may deny."""
    weight = given.get("weight", 1)
    if type(weight) is not int or weight not in (0, 1):
        raise RequestError(f"{where}: turn {number + 1} should have a weight of 0 or 1, not {shown(weight)}")
    return weight


def _check_order(chat: Conversation) -> None:
    """Refuse what no order of roles allows; a chat template may refuse more."""
    roles = [message["role"] for message in chat.messages]
    if ASSISTANT not in roles:
        raise RequestError(f"{chat.where} has no turn of the assistant, so there is nothing to learn")
    if roles[0] == ASSISTANT:
        raise chat.refused(0, "comes first; it should answer something")
    for number, role in enumerate(roles):
        before = chat.messages[number - 1] if number else {}
        if role == "tool" and before.get("role") != "tool" and not before.get("tool_calls"):
            raise chat.refused(number, "follows no call of a tool")
