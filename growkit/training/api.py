"""What people call: the Python twin of `growkit pretrain`. Knows the order of things; every step lives below."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from growkit.training import pretrain as run
from growkit.training.request import settings


def pretrain(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    watch: Callable[[dict[str, Any]], None] = lambda _: None,
    **request: Any,
) -> run.Finished:
    """Continue a checkpoint's pretraining into a run folder; the trained checkpoint becomes out/final.

    data: a dataset of growkit tokenize, or a .bin file. request: one of steps, tokens, epochs; schedule ("plain", "two-stage",
    "stackbert", "mslt") with sub_layers, sub_steps, to_layers, or stages; seq_len, batch_size (sequences), lr, warmup and
    whatever else growkit.training.settings.Settings has; teacher, teacher_steps. resume: go on with the run that is there.
    watch: called with each line of metrics. Raises RequestError, CheckpointError, or NotFiniteError where the loss is NaN.
    """
    return run.pretrain(settings(checkpoint, data, out, **request), resume, watch)
