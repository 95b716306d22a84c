"""Everything a run is told, with defaults that are right for continuing a grown model. Knows what can be asked; ignorant of how
a run is carried out.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from growkit.errors import RequestError
from growkit.training.machine import SHARDS
from growkit.training.objective import ALPHAS
from growkit.training.optim import DECAYS
from growkit.training.stages import Stage

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
)
UNTIL = ("steps", "overtaken")


@dataclass(frozen=True)
class Settings:
    """One run. batch_size: sequences per step over all processes and accumulation. lr: peak rate. warmup: steps. final_lr: share
    of the peak at the end. balance, router_z: weights of a mixture's balance loss and z-loss. teacher_steps: how long a teacher teaches; teacher_until: "overtaken" ends that when validation finds the model
    better than its teacher. shard: over how many processes a copy of the model is divided. eval_tokens: at most so many of the validation split.
    """

    checkpoint: str
    data: str
    out: str
    steps: int
    stages: tuple[Stage, ...] = ()
    seq_len: int = 512
    batch_size: int = 32
    grad_accum: int = 1
    lr: float = 3e-4
    warmup: int = 0
    decay: str = "cosine"
    final_lr: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0
    precision: str = "auto"
    device: str = "auto"
    shard: str = "auto"
    compile: bool | None = None
    grad_checkpointing: bool = False
    seed: int = 0
    teacher: str | None = None
    teacher_steps: int = 0
    teacher_until: str = "steps"
    temperature: float = 2.0
    alpha_schedule: str = "linear"
    balance: float = 0.0
    router_z: float = 0.0
    expert_dropout: float = 0.0
    eval_every: int = 200
    eval_tokens: int = 100_000
    save_every: int = 500
    keep: int = 2
    log_every: int = 10
    tensorboard: bool = False
    hashes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain data, for run.json."""
        return asdict(self)

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """'lr 0.001 (was 0.0003)' for each setting that a resumed run may not change and that differs."""
        now = self.to_json()
        now["stages"] = [dict(stage) for stage in now["stages"]]
        # where validation decides how long a teacher teaches, its steps are part of what is computed
        free = set(FREE) - ({"eval_every"} if self.teacher_until == "overtaken" else set())
        different = [key for key in now if key not in free and now[key] != recorded.get(key)]
        return [
            "other stages" if key == "stages" else f"{key} {now[key]!r} (was {recorded.get(key)!r})"
            for key in different
        ]


def check(settings: Settings, world: int, positions: int | None) -> None:
    """Refuse settings that cannot be, before anything is loaded or written."""
    for option, value, known in (
        ("decay", settings.decay, DECAYS),
        ("precision", settings.precision, PRECISIONS),
        ("alpha-schedule", settings.alpha_schedule, ALPHAS),
        ("teacher-until", settings.teacher_until, UNTIL),
        ("shard", settings.shard, SHARDS),
    ):
        if value not in known:
            raise RequestError(f"--{option} {value!r} is not one of {', '.join(known)}")
    for option, number in (
        ("seq-len", settings.seq_len),
        ("batch-size", settings.batch_size),
        ("steps", settings.steps),
    ):
        if number < 1:
            raise RequestError(f"--{option} {number} should be 1 or more")
    share = world * settings.grad_accum
    if settings.batch_size % share:
        lower, upper = settings.batch_size // share * share, (settings.batch_size // share + 1) * share
        near = " or ".join(str(size) for size in (lower, upper) if size)
        raise RequestError(
            f"--batch-size {settings.batch_size} cannot be divided among {world} processes x {settings.grad_accum} accumulation"
            f" steps; nearest that can: {near}"
        )
    if positions is not None and settings.seq_len > positions:
        raise RequestError(f"--seq-len {settings.seq_len} is more than the model's {positions} positions")
    if Path(settings.out).exists() and not Path(settings.out).is_dir():
        raise RequestError(f"--out {settings.out!r} exists and is no folder; choose another")
