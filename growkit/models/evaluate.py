"""How well a model predicts: nats per token, perplexity, bits per byte. Knows live models and windows of tokens;
ignorant of how tokens are stored or text is read.

Causal: the text is one stream, documents following each other as in training. A window of `context` tokens predicts the
token after each of its own; the next one starts `stride` later and only what was not predicted yet counts. So every
token but the first counts once; the last window is moved back until it is whole. Masked: windows side by side, 15 % of
each chosen.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, open_checkpoint
from growkit.checkpoint.token_ids import beyond_rows, token_at
from growkit.data.batches import IGNORED, masked_window
from growkit.data.domains import DomainLosses
from growkit.data.measured import Measured, measured
from growkit.data.stored_ids import StoredIds
from growkit.data.tokenizer import TextTokenizer, open_tokenizer, tokenizer_folder
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named, vocabulary_size
from growkit.models.adapters import adapted, check_adapter
from growkit.models.devices import device_named
from growkit.models.running import load_model, loadable, objective
from growkit.models.stock import computing
from growkit.operators.seeds import stable_seed

CONTEXT = 1024  # where the model has more positions
MASK_SEED = 0
LOGITS = 1 << 26  # numbers that one batch may put out: 256 MB in float32


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured."""

    checkpoint: str
    data: str
    split: str | None
    objective: str  # causal or masked
    context: int  # tokens a window shows
    stride: int  # tokens from one window to the next
    windows: int
    tokens: int  # in the data
    predicted: int  # tokens of these that count
    loss: float  # mean nats per predicted token
    perplexity: float | None  # of a causal model
    bits_per_byte: float | None  # of a causal model, where the bytes are known
    text_bytes: int | None  # how many these are
    counted: str  # in words what they are
    accuracy: float | None  # share of masked tokens that were guessed
    domains: dict[str, float] | None  # of tagged text: mean nats per predicted token of each domain
    device: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data; domains where text is tagged."""
        figures = {**asdict(self), "notes": list(self.notes)}
        return {key: value for key, value in figures.items() if key != "domains" or value is not None}


@dataclass(frozen=True)
class Windows:
    """The windows of so many tokens: each is context tokens of input, and of what they predict the last ones count."""

    tokens: int
    context: int
    stride: int
    causal: bool

    def __len__(self) -> int:
        if not self.causal:
            return self.tokens // self.context
        return 1 + math.ceil((self.tokens - 1 - self.context) / self.stride)

    def place(self, number: int) -> tuple[int, int]:
        """(first token, how many positions at the end count) of a window."""
        if not self.causal:
            return number * self.context, self.context
        end = min(self.context + number * self.stride, self.tokens - 1)
        before = self.context + (number - 1) * self.stride if number else 0
        return end - self.context, end - before


def evaluate(
    checkpoint: str | Path,
    data: str | Path,
    *,
    split: str = "val",
    context: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    device: str = "auto",
    text_key: str = "text",
    adapter: str | Path | None = None,
    begin: Callable[[int], Callable[[int], None]] = lambda _total: lambda _done: None,
) -> Evaluation:
    """Measure a stock checkpoint on a dataset, a .bin file of tokens, or text, in float32.

    context: tokens a window shows; by default the model's positions, at most 1024. stride: tokens from one window to
    the next, by default the context. limit: predict about so many tokens, in windows spread evenly over the data.
    begin: called with the number of windows, returns what is called as they are done. Raises CheckpointError or
    RequestError.
    """
    where = device_named(device)
    source = open_checkpoint(checkpoint)
    source.close()
    if adapter is not None:
        check_adapter(adapter, source)
    with loadable(source) as folder:
        config = read_model_config(folder / CONFIG)
        causal = objective(config, source.label)
        vocabulary = open_tokenizer(folder) if tokenizer_folder(folder) is not None else None
        text = measured(data, split, text_key, vocabulary, source.label)
        size = vocabulary_size(config)
        mask = None if causal else _mask(text, vocabulary, source.label, size)
        length = _context(config, context, len(text.ids) - causal, str(data))
        windows = Windows(len(text.ids), length, _stride(stride, length, causal), causal)
        count = len(windows) if limit is None else min(len(windows), math.ceil(limit / windows.stride))
        chosen = np.linspace(0, len(windows) - 1, count).round().astype(int)
        model, keys = load_model(config, folder, torch.float32)
    missing = [key for key in keys if key.startswith("missing")]
    if missing:
        raise CheckpointError(f"{source.label!r} lacks weights that its class needs ({missing[0]}); nothing to measure")
    if adapter is not None:
        model = adapted(model, adapter)
    model.config.use_cache = False
    rows = batch_size or max(1, LOGITS // (length * size))
    total, right, predicted, advance = 0.0, 0, 0, begin(len(chosen))
    kinds = DomainLosses(text.domains.names) if text.domains is not None else None
    model.to(where)
    for first in range(0, len(chosen), rows):
        numbers = chosen[first : first + rows].tolist()
        pairs = [_inputs_labels(text.ids, windows, number, mask, size) for number in numbers]
        inputs, labels = (torch.from_numpy(np.stack(side)) for side in zip(*pairs))
        largest = int(max(inputs.max(), labels.max()))
        if largest >= size:
            raise CheckpointError(
                beyond_rows(f"{str(data)!r} holds", largest, token_at(source.folder, largest), source.label, size)
            )
        nats, hits, each = _loss(model, inputs.to(where), labels.to(where), causal)
        total, right, predicted = total + nats, right + hits, predicted + len(each)
        if kinds is not None and text.domains is not None:
            starts = np.array([windows.place(number)[0] + causal for number in numbers])
            places = (starts[:, None] + np.arange(length))[labels.numpy() != IGNORED]
            kinds.add(text.domains.of(places), each.cpu().numpy())
        advance(len(numbers))
    loss = total / predicted
    bits = loss / math.log(2) * len(text.ids) / text.text_bytes if causal and text.text_bytes else None
    return Evaluation(
        checkpoint=source.label,
        data=str(data),
        split=text.split,
        objective="causal" if causal else "masked",
        context=length,
        stride=windows.stride,
        windows=len(chosen),
        tokens=len(text.ids),
        predicted=predicted,
        loss=loss,
        perplexity=_perplexity(loss) if causal else None,
        bits_per_byte=bits,
        text_bytes=text.text_bytes if causal else None,
        counted=text.counted if causal else "",
        accuracy=None if causal else right / predicted,
        domains=None if kinds is None else kinds.means(),
        device=str(where),
        notes=(*text.notes, *_notes(causal, keys, adapter)),
    )


def _loss(model: Any, inputs: torch.Tensor, labels: torch.Tensor, causal: bool) -> tuple[float, int, torch.Tensor]:
    """(sum of nats, how many were guessed, float64 nats of each position that counts, row by row) of (rows, length)
    inputs and labels."""
    with torch.no_grad(), computing(type(model).__name__):
        more = {} if causal else {"attention_mask": torch.ones_like(inputs)}
        output = model(input_ids=inputs, **more)
        scores = output["logits"] if "logits" in output else output["prediction_logits"]
        nats, hits, each = 0.0, 0, []
        for row, label in zip(scores, labels):
            counts = label != IGNORED
            row, label = row[counts].float(), label[counts]
            each.append(torch.nn.functional.cross_entropy(row, label, reduction="none").double())
            nats += float(each[-1].sum())
            hits += int((row.argmax(-1) == label).sum())
    return nats, hits, torch.cat(each)


def _inputs_labels(
    ids: np.ndarray | StoredIds, windows: Windows, number: int, mask: int | None, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """(input, labels) of a window, (context,) int64."""
    start, count = windows.place(number)
    piece = ids[start : start + windows.context + windows.causal].astype(np.int64)
    if mask is not None:
        return masked_window(piece, mask, vocabulary, stable_seed(MASK_SEED, f"mask {number}"))
    labels = piece[1:].copy()
    labels[: windows.context - count] = IGNORED
    return piece[:-1], labels


def _mask(text: Measured, vocabulary: TextTokenizer | None, label: str, rows: int) -> int:
    mask = vocabulary.mask if vocabulary is not None else text.mask
    if mask is None:
        raise CheckpointError(f"{label!r} is a masked language model, and its tokenizer has no mask token")
    if mask >= rows:
        raise CheckpointError(beyond_rows("masks are", mask, None, label, rows))
    return mask


def _context(config: dict[str, Any], asked: int | None, available: int, data: str) -> int:
    """Tokens in a window. available: the most that the data can fill."""
    positions = family_named(config.get("model_type")).longest(config)
    if not isinstance(positions, int) or positions < 1:
        positions = CONTEXT
    if asked is not None and asked > positions:
        raise RequestError(f"--context {asked} is more than the model's {positions} positions")
    if available < (asked or 1):
        raise RequestError(
            f"{data!r} is too short: it can fill a window of {max(0, available)} tokens, not of {asked or 1}"
            + ("; give a smaller --context" if asked and available > 0 else "")
        )
    return asked or min(positions, CONTEXT, available)


def _stride(asked: int | None, length: int, causal: bool) -> int:
    if asked is not None and not causal:
        raise RequestError("--stride is for causal models; masked ones are measured in windows side by side")
    if asked is not None and asked > length:
        raise RequestError(f"--stride {asked} is more than the context of {length}: tokens between would not count")
    return asked or length


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _notes(causal: bool, keys: list[str], adapter: str | Path | None) -> Iterator[str]:
    if adapter is not None:
        yield f"with {str(adapter)!r} on it"
    if not causal:
        yield (
            f"masked: 15 % of each window, drawn by seed {MASK_SEED}; a masked loss has no perplexity and no bits per"
            " byte"
        )
    if keys:
        yield f"the checkpoint holds weights that its class does not have: {keys[0]}"
