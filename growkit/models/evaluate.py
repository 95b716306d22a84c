"""How well a model predicts: nats per token, perplexity, bits per byte. Knows live models and windows of tokens;
ignorant of how tokens are stored or text is read.

Of conversations, what the assistant says counts, each conversation by itself.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, open_checkpoint
from growkit.checkpoint.token_ids import beyond_rows, token_at
from growkit.data.batches import IGNORED, Batch
from growkit.data.domains import DomainLosses
from growkit.data.measured import Measured, measured
from growkit.data.packed_batches import PackedBatches
from growkit.data.tokenizer import TextTokenizer, open_tokenizer, tokenizer_folder
from growkit.data.windows import MASK_SEED, Windows
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named, vocabulary_size
from growkit.models.adapters import Adapter
from growkit.models.devices import device_named
from growkit.models.expert_domains import TakenExperts
from growkit.models.running import check_complete, load_model, loadable, objective
from growkit.models.stock import computing

CONTEXT = 1024  # where the model has more positions
TAGGED = ("domains", "expert_domains")  # figures that untagged text has not
Begin = Callable[[int], Callable[[int], None]]
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
    expert_domains: dict[str, Any] | None  # of a mixture on tagged text: what experts tell of domains, layer by layer
    device: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data; of domains where text is tagged."""
        figures = {**asdict(self), "notes": list(self.notes)}
        return {key: value for key, value in figures.items() if key not in TAGGED or value is not None}


def measuring(
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
    adapter: Adapter | None = None,
) -> Callable[[Begin], Evaluation]:
    """What measures a stock checkpoint on a dataset, a .bin file of tokens, or text, in float32, once for each call;
    the model is loaded once, and what an adapter computes may change between calls.

    context: tokens a window shows; by default the model's positions, at most 1024. stride: tokens from one window to
    the next, by default the context. limit: predict about so many tokens, in windows spread evenly over the data.
    A call takes `begin`: called with the number of windows, it returns what is called as they are done. Both raise
    CheckpointError or RequestError.
    """
    where = device_named(device)
    source = open_checkpoint(checkpoint)
    source.close()
    if adapter is not None:
        adapter.check(source)
    with loadable(source) as folder:
        config = read_model_config(folder / CONFIG)
        causal = objective(config, source.label)
        vocabulary = open_tokenizer(folder) if tokenizer_folder(folder) is not None else None
        text = measured(data, split, text_key, vocabulary, source.label)
        size = vocabulary_size(config)
        mask = None if causal else (_mask(text, vocabulary, source.label, size), size)
        if text.chat is not None:
            _check_chat(stride, causal, source.label)
        length = _context(config, context, len(text.ids) - causal if text.chat is None else None, str(data))
        every = _stride(stride, length, causal)
        windows = Windows(ids=text.ids, context=length, stride=every, masked=mask, domains=text.domains)
        rows_of = (
            windows
            if text.chat is None
            else PackedBatches(
                text.chat, length=length, size=1, packs=_packs(config) and (adapter is None or adapter.packs)
            )
        )
        count = rows_of.windows if limit is None else min(rows_of.windows, math.ceil(limit / every))
        chosen = np.linspace(0, rows_of.windows - 1, count).round().astype(int)
        model, keys = load_model(config, folder, torch.float32)
    check_complete(keys, source.label, "nothing to measure")
    taken = TakenExperts(model, text.domains) if text.domains is not None else None
    if adapter is not None:
        model = adapter.put_on(model)
    model.config.use_cache = False

    def measure(begin: Begin) -> Evaluation:
        rows = batch_size or max(1, LOGITS // (length * size))
        total, right, predicted, advance = 0.0, 0, 0, begin(len(chosen))
        kinds = DomainLosses(text.domains.names) if text.domains is not None else None
        model.to(where)
        for first in range(0, len(chosen), rows):
            numbers = chosen[first : first + rows].tolist()
            batch = rows_of.at(numbers)
            largest = int(max(batch.inputs.max(), batch.labels.max()))
            if largest >= size:
                raise CheckpointError(
                    beyond_rows(f"{str(data)!r} holds", largest, token_at(source.folder, largest), source.label, size)
                )
            asked = None if text.chat is None else (batch.labels != IGNORED).int().argmax(1) + 1
            with nullcontext() if adapter is None else adapter.reading(model, batch.inputs, asked):
                nats, hits, each = _loss(model, batch.to(where), causal)
            total, right, predicted = total + nats, right + hits, predicted + len(each)
            if kinds is not None:
                kinds.add(batch.of.numpy(), each.cpu().numpy())
            if taken is not None:
                taken.add(batch.places.numpy())
            advance(len(numbers))
        loss = total / predicted
        bits = loss / math.log(2) * len(text.ids) / text.text_bytes if causal and text.text_bytes else None
        return Evaluation(
            checkpoint=source.label,
            data=str(data),
            split=text.split,
            objective="causal" if causal else "masked",
            context=length,
            stride=every,
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
            expert_domains=None if taken is None else taken.told(),
            device=str(where),
            notes=(
                *text.notes,
                *_notes(causal, keys, adapter),
                *(rows_of.notes(f"--context {length}") if isinstance(rows_of, PackedBatches) else ()),
            ),
        )

    return measure


def _loss(model: Any, batch: Batch, causal: bool) -> tuple[float, int, torch.Tensor]:
    """(sum of nats, how many were guessed, float64 nats of each position that counts, row by row) of a batch."""
    more = {} if causal else {"attention_mask": torch.ones_like(batch.inputs)}
    more |= {} if batch.positions is None else {"position_ids": batch.positions}
    with torch.no_grad(), computing(type(model).__name__):
        output = model(input_ids=batch.inputs, **more)
        scores = output["logits"] if "logits" in output else output["prediction_logits"]
        nats, hits, each = 0.0, 0, []
        for row, label in zip(scores, batch.labels):
            counts = label != IGNORED
            row, label = row[counts].float(), label[counts]
            each.append(torch.nn.functional.cross_entropy(row, label, reduction="none").double())
            nats += float(each[-1].sum())
            hits += int((row.argmax(-1) == label).sum())
    return nats, hits, torch.cat(each)


def _mask(text: Measured, vocabulary: TextTokenizer | None, label: str, rows: int) -> int:
    mask = vocabulary.mask if vocabulary is not None else text.mask
    if mask is None:
        raise CheckpointError(f"{label!r} is a masked language model, and its tokenizer has no mask token")
    if mask >= rows:
        raise CheckpointError(beyond_rows("masks are", mask, None, label, rows))
    return mask


def _check_chat(stride: int | None, causal: bool, label: str) -> None:
    if not causal:
        raise RequestError(
            f"{label!r} fills in masked tokens, and conversations are for models that predict the next one"
        )
    if stride is not None:
        raise RequestError("--stride is for text; of conversations every answer counts once, each by itself")


def _packs(config: dict[str, Any]) -> bool:
    return family_named(config.get("model_type")).packs


def _context(config: dict[str, Any], asked: int | None, available: int | None, data: str) -> int:
    """Tokens in a window. available: the most that the data can fill; None: windows need not be full."""
    positions = family_named(config.get("model_type")).longest(config)
    if not isinstance(positions, int) or positions < 1:
        positions = CONTEXT
    if asked is not None and asked > positions:
        raise RequestError(f"--context {asked} is more than the model's {positions} positions")
    if available is None:
        return asked or min(positions, CONTEXT)
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


def _notes(causal: bool, keys: list[str], adapter: Adapter | None) -> Iterator[str]:
    if adapter is not None:
        yield from adapter.notes()
    if not causal:
        yield (
            f"masked: 15 % of each window, drawn by seed {MASK_SEED}; a masked loss has no perplexity and no bits per"
            " byte"
        )
    if keys:
        yield f"the checkpoint holds weights that its class does not have: {keys[0]}"
