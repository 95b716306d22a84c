"""`growkit eval`: how well a model predicts text."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.models.evaluate import Evaluation

Data = Annotated[
    w.PathLike,
    Option(help="A dataset of growkit tokenize, a .bin file of tokens, or text.", panel=None, metavar="DATA|TEXT"),
]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of windows; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def evaluate(
    checkpoint: w.Checkpoint,
    data: Data,
    *,
    split: Annotated[Literal["train", "val"], Option(help="Which part of a dataset.")] = "val",
    context: Annotated[
        int | None,
        Option(
            help="Tokens in a window; default the model's positions, at most 1024.",
            panel=None,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    stride: Annotated[
        int | None,
        Option(
            help="Tokens from a window to the next; default the context. Fewer give each token more context.",
            panel=None,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        Option(
            help="Windows at a time; default what takes 256 MB of logits.",
            panel=None,
            metavar="N",
            within=(1, limits.BATCH),
        ),
    ] = None,
    limit: Annotated[
        int | None,
        Option(
            help="Predict about so many tokens, spread evenly over the data.",
            panel=None,
            metavar="TOKENS",
            within=(1, limits.TOKENS),
        ),
    ] = None,
    device: Annotated[w.Device, Option(help="Where to compute.")] = "auto",
    text_key: Annotated[
        str, Option(help="Where JSON lines and parquet hold the text.", panel=None, metavar="KEY")
    ] = "text",
    adapter: w.Adapter = None,
    begin: Begin = _quiet,
) -> "Evaluation":
    """Measure how well a model predicts text: nats per token, perplexity, bits per byte; masked models: loss and
    accuracy.

    checkpoint: a stock model, measured in float32, or a bundle of skills. data: a dataset, of which split says the
    part, or text in the formats that `tokenize` reads. Every token of the data but the first counts once, whatever the
    stride.

    Returns an Evaluation: .loss in nats per predicted token, and more. Raises CheckpointError or RequestError.
    """
    from growkit.models.evaluate import measuring
    from growkit.skills.gates.bundle_use import base_and_adapter

    model, on_it = base_and_adapter(checkpoint, adapter)
    return measuring(
        model, data, split=split, context=context, stride=stride, batch_size=batch_size, limit=limit,
        device=device, text_key=text_key, adapter=on_it,
    )(begin)  # fmt: skip
