"""Everything a run is told, with defaults that are right for continuing a grown model. Knows what can be asked;
ignorant of how a run is carried out.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import shown
from growkit.errors import RequestError
from growkit.training.estimates import ESTIMATES
from growkit.training.machine import SHARDS
from growkit.training.optim import DECAYS
from growkit.training.stages import Stage
from growkit.training.teaching import ALPHAS

PRECISIONS = ("auto", "float32", "bfloat16")
# what may differ when a run is resumed: it changes when things are said and kept, not what is computed
FREE = (
    "out",
    "eval_every",
    "save_every",
    "keep",
    "log_every",
    "device",
    "shard",
    "compile",
    "grad_checkpointing",
    "tensorboard",
    "wandb",
)
EVERYTHING = ""  # what a teacher without a domain speaks for
UNTIL = ("overtaken", "steps")  # "overtaken": validation finds the model better than its teacher


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run, with everything made whole: what `growkit.pretrain` or `growkit.tune` was asked for, whose signatures
    say the defaults."""

    command: str  # which of the two

    # what is trained on what, and how long
    checkpoint: str  # the model to go on from
    data: str  # a dataset, or a .bin file of tokens
    mix: float | dict[str, float] | None  # of tasks: a temperature, or weights by name; None: evenly
