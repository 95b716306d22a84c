"""What a step minimises: the language-model loss, mixed with what a teacher says. Knows live models and logits;
ignorant of optimizers and of data.

Knowledge inheritance (Qin et al., arXiv 2105.13880): L = (1 - alpha) CE + alpha tau^2 KL(teacher || student), with
alpha as growkit.training.teachers.teaching says.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from growkit.data.batches import IGNORED, Batch
from growkit.models.live_layers import layers_path
from growkit.models.running import is_causal
from growkit.models.stock import computing
from growkit.training.teachers.estimates import ShortWord

LOGITS = {"cpu": 1 << 21, "cuda": 1 << 27}  # entries computed at a time, by the kind of device


class Word(Protocol):
    """What a teacher says of n positions."""

    @property
    def rows(self) -> torch.Tensor | None:
        """(m,) int64, which of them it speaks of, in order; None: all."""

    def nats(self, logits: torch.Tensor) -> torch.Tensor:
        """tau^2 KL(teacher || student), summed over these rows, in nats: a scalar. logits: (m, vocabulary) float32, the
        student's."""


@dataclass(frozen=True)
class WholeWord:
    """What a teacher says that computed all its logits. theirs: (m, entries), of the first of the student's where it
    has fewer. temperature: of both distributions."""

    theirs: torch.Tensor
    temperature: float
    rows: torch.Tensor | None = None

    def nats(self, logits: torch.Tensor) -> torch.Tensor:
        """tau^2 KL(teacher || student), summed; in float32."""
        with torch.no_grad():
            teacher = torch.log_softmax(self.theirs.float() / self.temperature, dim=-1)
            wanted = teacher.exp()
            entropy = -(wanted * teacher).sum()
        shared = logits[:, : wanted.shape[1]]
        crossed = torch.nn.functional.cross_entropy(shared / self.temperature, wanted, reduction="sum")
        return self.temperature**2 * (crossed - entropy)


def is_masked(config: Any) -> bool:
    """Whether a model learns by filling in masked tokens rather than by predicting the next one."""
    return not is_causal({"model_type": config.model_type, "architectures": config.architectures})


class Predicted:
    """What a model says of the n positions that a batch predicts: hidden states (n, hidden) at once, logits piece by
    piece.

    Logits are vocabulary / hidden times as large as hidden states, and each of the loss's passes reads them all: the
    head runs on as many rows as a cache holds, or as keep a GPU busy; and only on what is predicted, 15 % of a masked
    batch.
    """

    def __init__(self, model: Any, batch: Batch):
        inputs, masked = batch.inputs, is_masked(model.config)
        # no attention mask: without one the causal flash kernel is used, and texts that share a row, whose positions
        # begin anew, do not see each other
        more: dict[str, Any] = {} if masked else {"use_cache": False}
        more |= {} if batch.positions is None else {"position_ids": batch.positions}
        with computing(type(model).__name__):
            self._output = model.base_model(input_ids=inputs, **more)
        self.model = model
        self.labels, self.hidden = batch.labels.flatten(), self._output["last_hidden_state"].flatten(0, 1)
        if batch.predicted < len(self.labels):
            chosen = (self.labels != IGNORED).nonzero().squeeze(1)
            self.labels, self.hidden = self.labels[chosen], self.hidden[chosen]
        else:
            self.hidden = self.hidden.clone()  # a sharded model may not hand out a view
        rows = max(1, LOGITS[inputs.device.type] // model.config.vocab_size)
        # at least one: where nothing is predicted the head still gets a gradient, of zeros, which processes can sum
        self.pieces = [slice(first, first + rows) for first in range(0, max(1, len(self.labels)), rows)]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, vocabulary) float32 of (n, hidden): the model's own way from its base model's output on, caps and scales
        too."""
        self._output["last_hidden_state"] = hidden[None]
        base, name = self.model.base_model, self.model.base_model_prefix
        setattr(self.model, name, _Given(self._output, base))
        try:
            return self.model.forward(input_ids=self.labels[None, :1]).logits.flatten(0, 1).float()
        finally:
            setattr(self.model, name, base)


class _Given(torch.nn.Module):
    """In a base model's place: its output is there already."""

    def __init__(self, output: Any, base: Any):
        super().__init__()
        self.output, self.layers = output, layers_path(base)
        self.parts = {name: part for name, part in base.named_children() if not self.layers.startswith(f"{name}.")}

    def forward(self, *_: Any, **__: Any) -> Any:
        """The output that is there, whatever is asked."""
        return self.output

    def __getattr__(self, name: str) -> Any:
        """What a head asks of its base model: its embeddings (DeBERTa), or the part that has the layers (OPT), for
        which this stands too."""
        return self.__dict__.get("parts", {}).get(name, self)


def learn(
    predicted: Predicted,
    weight: float,
    taught: Callable[[slice], Word] | None = None,
    alpha: float = 0.0,
    computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward through the head of weight * (CE - alpha (CE of the rows that the teacher speaks of - tau^2 KL)), each
    summed over its positions: (1 - alpha) CE + alpha tau^2 KL where it speaks of all.

    Returns (gradient of predicted.hidden, which is for the caller to hand on; sums of CE and of tau^2 KL (2,),
    float64). taught: the teacher's word on a piece. computing: the context to compute forward in.
    """
    gradient = torch.empty_like(predicted.hidden)
    sums = torch.zeros(2, device=gradient.device, dtype=torch.float64)
    for piece in predicted.pieces:
        hidden = predicted.hidden[piece].detach().requires_grad_()
        with computing():
            logits, word = predicted.logits(hidden), taught(piece) if taught else None
        loss, own, kept = mixed(logits, predicted.labels[piece], word, alpha)
        (weight * loss).backward()
        gradient[piece] = hidden.grad
        sums += torch.stack([own, kept]).detach()
    return gradient, sums


def mixed(
    logits: torch.Tensor, labels: torch.Tensor, word: Word | None, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(what is minimised, cross-entropy, tau^2 KL), each summed over n positions, in nats. logits: (n, vocabulary)."""
    own = nats(logits, labels)
    if word is None:
        return own, own, own.new_zeros(())
    if isinstance(word, ShortWord) and word.rows is None and word.is_plain(logits):
        # one normaliser for both: of a store no more is read than of no teacher
        chances = torch.log_softmax(logits, dim=-1).gather(1, torch.cat([labels[:, None], word.terms.ids], 1))
        own, kept = -chances[:, 0].sum(), word.terms.nats(chances[:, 1:])
        return (1.0 - alpha) * own + alpha * kept, own, kept
    if word.rows is None:
        kept = word.nats(logits)
        return (1.0 - alpha) * own + alpha * kept, own, kept
    kept = word.nats(logits[word.rows])
    return own - alpha * (nats(logits[word.rows], labels[word.rows]) - kept), own, kept


def total_loss(predicted: Predicted, each: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(sum of nats over the predicted positions, a float64 scalar; where `each` is asked for, those of each (n,))."""
    sums, single = [], []
    for piece in predicted.pieces:
        logits, labels = predicted.logits(predicted.hidden[piece]), predicted.labels[piece]
        sums.append(nats(logits, labels))
        if each:
            single.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    return torch.stack(sums).double().sum(), torch.cat(single) if each else None


def nats(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, summed over n positions. logits: (n, vocabulary). labels: (n,)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
