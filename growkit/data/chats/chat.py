"""Conversations to a chat dataset: their tokens, which of these are learned, and what a person should know of it. Knows
the order of things; every step lives beside it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from growkit.data.chats.answers import Answers, Seen
from growkit.data.chats.chat_template import ChatTemplate
from growkit.data.chats.conversations import CHAT_ENDS, Conversation
from growkit.data.tokens import SPLITS, TokenWriter, dtype_for
from growkit.errors import RequestError


def check_chat(
    chat: bool, template: str | Path | None, tokenizer: str | Path | None, text_key: str, library: bool
) -> None:
    """Refuse what is not said of conversations, or of them alone. Raises RequestError."""
    if not chat:
        if template is not None:
            raise RequestError("--template is for conversations; add --chat, or leave it out")
        return
    if tokenizer is None:
        raise RequestError("--chat needs the tokenizer of the model that learns: --tokenizer CKPT")
    if text_key != "text":
        raise RequestError("--text-key names the text of plain JSON lines; conversations have keys of their own")
    if library:
        raise RequestError(
            "--chat reads JSON lines, and --dataset is for text; write the conversations to .jsonl files"
        )


def check_chat_files(paths: Sequence[Path]) -> None:
    """Refuse files that hold no JSON lines. Raises RequestError."""
    for path in paths:
        if not path.name.endswith(CHAT_ENDS):
            raise RequestError(f"{str(path)!r} holds no conversations: --chat reads {' and '.join(CHAT_ENDS)}")


def write_conversations(
    stream: Iterable[tuple[str, int, Conversation]], answers: Answers, size: int, folder: Path, domains: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Write a stream of (split, number of the domain, conversation) into a folder; returns what meta.json says of each
    split. size: of the vocabulary. Raises RequestError for what cannot be learned from.
    """
    dtype = dtype_for(size)
    writers: dict[str, TokenWriter] = {}
    with ExitStack() as stack:
        for split, domain, chat in stream:
            told = answers.of(chat)
            if split not in writers:
                writers[split] = TokenWriter(folder, split, dtype, domains, chat=True)
                stack.callback(writers[split].close)
            ids = np.asarray(told.ids, dtype).tobytes()
            writers[split].add_stored(ids, told.text_bytes, domain, told.learned)
    return {split: writers[split].close() for split in SPLITS if split in writers}


def chat_notes(seen: Seen, template: ChatTemplate) -> Iterator[str]:
    """What a person should know of the answers that were met."""
    for token, count in sorted(seen.ends.items(), key=lambda entry: -entry[1]):
        if token is None:
            yield f"{count:,} answers are ended by no token, so that generation would not stop behind them"
        elif token not in template.stops:
            name = template.tokenizer.convert_ids_to_tokens(token)
            yield (
                f"{count:,} answers end with {name!r} (id {token}), at which generation does not stop: {template.where} has"
                f" {sorted(template.stops)} as eos_token_id; add {token} there"
            )
    if seen.added:
        yield f"the end-of-text token was added to {seen.added:,} conversations, whose last answer the chat template does not end"
    if seen.joined:
        yield f"{seen.joined:,} answers begin within the token that ends the prompt before them: it is learned"
    if seen.opened:
        yield (
            f"the template's prompt for an answer goes on with {seen.opened!r}, which its text of whole conversations does not"
            " have: what is learned is not quite what is asked"
        )
    if seen.unasked:
        yield f"the template has no prompt for an answer, so {seen.unasked!r} is learned as part of each"
    if seen.unseen_tools:
        yield f"{seen.unseen_tools:,} conversations have tools that the chat template does not show"
    if "strftime_now" in template.source:
        yield "the chat template writes the date of today, so the same conversations give other tokens tomorrow"
