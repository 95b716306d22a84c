"""Which tokens of a conversation the assistant says: exact spans, told by the template's own marks or by rendering with
and without. Knows texts and tokens; ignorant of files and of what is learned from them.

An answer begins where the prompt that asks for it ends, and ends with the token that ends the turn, at which generation
stops. A token is the assistant's where any of its characters is.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from growkit.data.chats.chat_template import ChatTemplate
from growkit.data.chats.conversations import Conversation
from growkit.data.chats.shown import Place, Shown
from growkit.data.encode import unencodable
from growkit.errors import RequestError


@dataclass(frozen=True)
class Answered:
    """A conversation in tokens. ids: of all its text. learned: 1 for each token that is the assistant's to say, else 0.
    text_bytes: of the text in UTF-8."""

    ids: list[int]
    learned: bytes
    text_bytes: int


@dataclass(kw_only=True)
class Seen:
    """What was met while conversations were read. answers: how many are learned. ends: how often each token ended one;
    None: none did. added: conversations that an end-of-text token was added to. joined: answers whose first characters
    are in a token of the prompt's. opened: what prompts go on with where the text does not. unasked: what opens answers
    though no prompt does. unseen_tools: conversations whose tools the template does not show."""

    answers: int = 0
    ends: Counter[int | None] = field(default_factory=Counter)
    added: int = 0
    joined: int = 0
    opened: str = ""
    unasked: str = ""
    unseen_tools: int = 0


class _Span(NamedTuple):
    """Tokens first .. last of an answer. ends: whether the last is one that ends a turn."""

    first: int
    last: int
    ends: bool


class Answers:
    """Conversations to tokens, by one template and its tokenizer; what was met on the way is in `seen`."""

    def __init__(self, template: ChatTemplate):
        self.template, self.seen = template, Seen()
        tokenizer = template.tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._asks: bool | None = None  # whether the template has a prompt for an answer
        self._end: int | None = tokenizer.eos_token_id
        self._stops = template.stops | ({self._end} if self._end is not None else set())

    def of(self, chat: Conversation) -> Answered:
        """One conversation. Raises RequestError, with its line and turn, where the template does not take it or does
        not let the assistant's part be told."""
        shown = Shown(self.template, chat)
        try:
            size = len(shown.text.encode("utf-8"))
        except UnicodeEncodeError:
            raise RequestError(f"{chat.where} holds half a character (a lone surrogate); mend it") from None
        tokens = self._encode(shown.text)
        marks, ids, learned = shown.marks(), tokens.ids, bytearray(len(tokens.ids))
        for turn in chat.learned:
            if shown.place(turn) is None:
                raise chat.refused(turn, "is not shown by the chat template, whatever it says")
            spans = (
                [self._told(shown, turn, chat, tokens)]
                if marks is None
                else list(self._marked(shown, turn, marks, tokens))
            )
            if not any(span.last > span.first for span in spans):
                raise chat.refused(turn, "has no token that the chat template lets the assistant say")
            for span in spans:
                learned[span.first : span.last] = b"\1" * (span.last - span.first)
            closed = spans[-1]
            self.seen.answers += 1
            if not closed.ends and turn == len(chat.messages) - 1 and self._end is not None:
                ids, learned = [*ids[: closed.last], self._end], learned[: closed.last] + b"\1"
                self.seen.added += 1
            else:
                self.seen.ends[ids[closed.last - 1] if closed.ends else None] += 1
        self.seen.unseen_tools += bool(chat.tools) and not shown.has_tools()
        return Answered(ids, bytes(learned), size)

    def _told(self, shown: Shown, turn: int, chat: Conversation, tokens: "_Tokens") -> _Span:
        """An answer, by rendering with it and without."""
        start, opened = shown.answer_start(turn)
        words, last = shown.place(turn) or (0, 0)
        first = tokens.holding(start)
        self.seen.opened = self.seen.opened or opened
        if not opened and tokens.ids[:first] != self._encode(shown.text[:start]).ids:
            self.seen.joined += 1
        if self._asks is None:
            self._asks = shown.asks(turn)
        if not self._asks:
            self.seen.unasked = self.seen.unasked or shown.text[start:words].strip()
        until = shown.next_words(turn)
        end = self._first_of(self._stops, tokens, last, until)
        if end is None:
            until = min(until, shown.closing(turn))
            end = self._first_of(self._special, tokens, last, until)
        if end is not None:
            return _Span(first, end + 1, True)
        return _Span(first, tokens.at(last + len(shown.text[last:until].rstrip())), False)

    def _marked(self, shown: Shown, turn: int, marks: list[Place], tokens: "_Tokens") -> Iterator[_Span]:
        """The spans of an answer that the template marks, with the token that ends the turn where the mark ends before
        it."""
        first, last = shown.place(turn) or (0, 0)
        for start, stop in marks:
            if start < last and stop > first:
                begin, end = tokens.holding(start), tokens.at(stop)
                if end < len(tokens.ids) and tokens.ids[end] in self._stops and tokens.ids[end - 1] not in self._stops:
                    end += 1
                yield _Span(begin, end, tokens.ids[end - 1] in self._stops | self._special)

    def _first_of(self, wanted: set[int] | frozenset[int], tokens: "_Tokens", start: int, stop: int) -> int | None:
        """The first token of a kind that begins among these characters."""
        places = range(tokens.at(start), tokens.at(stop))
        return next((place for place in places if tokens.ids[place] in wanted), None)

    def _encode(self, text: str) -> "_Tokens":
        try:
            encoding = self._backend.encode(text, add_special_tokens=False)
        except Exception as error:  # the library raises no kind of its own
            raise unencodable(error) from None
        return _Tokens(encoding.ids, [first for first, _ in encoding.offsets], [last for _, last in encoding.offsets])


class _Tokens(NamedTuple):
    """The tokens of a text. starts, stops: at which character each begins, and the one behind its last."""

    ids: list[int]
    starts: list[int]
    stops: list[int]

    def at(self, character: int) -> int:
        """The first token that begins at a character or behind it."""
        return bisect_left(self.starts, character)

    def holding(self, character: int) -> int:
        """The token that a character is in, else the next."""
        place = self.at(character)
        return place - 1 if place and self.stops[place - 1] > character else place
