"""A chat template: the words a tokenizer puts around what people say to each other. Knows transformers' sandboxed
Jinja, in which nothing of a template runs as code; ignorant of which words are to be learned.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.companions import GENERATION
from growkit.checkpoint.small_files import read_bytes, read_json
from growkit.checkpoint.source import CONFIG
from growkit.data.chats.conversations import Message
from growkit.errors import CheckpointError, RequestError

CHATML = "chatml"  # a template that needs no file
LARGEST = 1 << 20  # bytes of a template
MARKED = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + END + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_END = "<|im_end|>"


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A tokenizer and its chat template. own: the template, where it is not the tokenizer's. stops: ids that generation
    stops at, where: what says so."""

    tokenizer: Any
    own: str | None
    stops: frozenset[int]
    where: str

    @property
    def source(self) -> str:
        """The template's text; that of all where a tokenizer has several."""
        known = self.own if self.own is not None else self.tokenizer.chat_template
        return known if isinstance(known, str) else json.dumps(known, sort_keys=True)

    @property
    def hash(self) -> str:
        """SHA-256 of the template."""
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()

    def text(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], prompting: bool = False) -> str:
        """The text of messages; prompting: with what makes the assistant speak next. Raises whatever the template
        does."""
        shown: str = self.tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            chat_template=self.own,
            add_generation_prompt=prompting,
            tokenize=False,
        )
        return shown

    def marks(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[tuple[int, int]] | None:
        """(first, last) character of each stretch that the template itself marks as the assistant's; None where it
        marks nothing. Raises whatever the template does."""
        from transformers.utils.chat_template_utils import render_jinja_template

        source = self.tokenizer.get_chat_template(self.own, list(tools) or None)
        if not MARKED.search(source):
            return None
        rendered: Any = render_jinja_template(
            [list(messages)],
            tools=list(tools) or None,
            chat_template=source,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return [(first, last) for first, last in rendered[1][0] if last > first]


def open_template(tokenizer: Any, folder: Path, label: str, asked: str | Path | None) -> ChatTemplate:
    """The template that was asked for, a file's or "chatml", or the tokenizer's own. folder: the tokenizer's.

    Raises RequestError where there is none.
    """
    own = None
    if asked is not None:
        own = _chatml(tokenizer, label) if str(asked) == CHATML and not Path(CHATML).exists() else _of_file(Path(asked))
    elif not tokenizer.chat_template:
        raise RequestError(
            f"the tokenizer of {label!r} has no chat template; give one with --template FILE or --template chatml"
        )
    stops, where = _stops(tokenizer, folder)
    return ChatTemplate(tokenizer=tokenizer, own=own, stops=stops, where=where)


def _chatml(tokenizer: Any, label: str) -> str:
    """ChatML, whose turns end as the tokenizer's texts do where it has no token of ChatML's for that."""
    if _END in tokenizer.get_vocab():
        return _CHATML.replace("END", f"'{_END}'")
    if tokenizer.eos_token is None:
        raise RequestError(
            f"the tokenizer of {label!r} has neither {_END} nor an end-of-text token, so that no answer could end; give"
            " --template FILE, or another tokenizer"
        )
    return _CHATML.replace("END", "eos_token")


def _of_file(path: Path) -> str:
    """The text of a template's file. Raises RequestError for one that is none."""
    try:
        return read_bytes(path, LARGEST).decode("utf-8").removeprefix("\ufeff")
    except CheckpointError as error:
        raise RequestError(f"--template: {error}") from None
    except UnicodeDecodeError:
        raise RequestError(f"--template {str(path)!r} is not UTF-8; give a file of Jinja, or {CHATML}") from None


def _stops(tokenizer: Any, folder: Path) -> tuple[frozenset[int], str]:
    """(ids that generation stops at, what says so): as transformers finds them, the tokenizer's where nothing does."""
    for name in (GENERATION, CONFIG):
        stated = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        ids = stated if isinstance(stated, list) else [stated]
        if stated is not None and all(type(token) is int for token in ids):
            return frozenset(ids), name
    return frozenset([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]), "its tokenizer"
