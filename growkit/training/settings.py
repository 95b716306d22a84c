"""Everything a run is told, with defaults that are right for continuing a grown model. Knows what can be asked;
ignorant of how a run is carried out.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import shown
from growkit.errors import RequestError
from growkit.growth.muon_rules import ADAMW, MUON
from growkit.training.kept_multipliers import exponent
from growkit.training.machine import SHARDS
from growkit.training.optim import DECAYS
from growkit.training.stages import Stage
from growkit.training.teachers.estimates import ESTIMATES
from growkit.training.teachers.teaching import ALPHAS

OPTIMIZERS = {"adamw": ADAMW, "muon": MUON}  # as an option has them -> as files do
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
    out: str  # folder of the run
    steps: int  # optimizer steps, those of all stages
    stages: tuple[Stage, ...]  # what is trained when
    seq_len: int  # tokens in a sequence
    batch_size: int  # sequences in a step, over all processes and accumulation
    grad_accum: int  # parts that a process divides its share of a step into
    seed: int  # for the order of the data, masks, prefixes and dropout
    train: str  # what learns, as growkit.training.learning.train_words has it

    # the optimizer and its rate
    optimizer: str  # a row of OPTIMIZERS
    lr: float  # the peak
    warmup: int  # steps until the peak
    decay: str  # how the rate falls, a row of growkit.training.optim.DECAYS
    final_lr: float  # share of the peak at the end
    weight_decay: float  # decoupled; none on norms and biases
    beta1: float  # how much of the first moment stays in a step
    beta2: float  # and of the second
    eps: float  # added to the second moment's root
    multipliers: str  # how long a growth's multipliers stay, a row of growkit.training.kept_multipliers.WAYS
    clip: float  # largest norm of the gradient; 0: any

    # the machine
    precision: str  # what products are computed in; weights stay float32
    device: str  # where
    shard: str  # over how many processes a copy of the model is divided
    compile: bool | None  # whether each layer is compiled; None: on a GPU
    grad_checkpointing: bool  # recompute activations instead of keeping them

    # a teacher
    teacher: str | dict[str, str] | None  # a checkpoint that teaches at first, or several by the domains they speak for
    teacher_steps: int  # how long
    teacher_until: str | None  # what ends that sooner, one of UNTIL; None: "overtaken", where the data can tell it
    teacher_estimate: str | None  # of a teacher's store: a row of growkit.training.teachers.estimates.ESTIMATES
    temperature: float  # of both distributions
    teacher_schedule: str  # how the teacher's weight falls, a row of growkit.training.teachers.teaching.ALPHAS
    teacher_weight: float | None  # that weight at the first step; None: measured, growkit.training.teachers.teaching

    # mixtures of experts
    balance: float  # weight of the load-balancing loss
    router_z: float  # weight of the router z-loss
    expert_dropout: float  # dropout on the experts' hidden activation
    capacity: float  # of an expert while it trains, in shares of an even load; 0: any

    # what is measured and kept
    eval_every: int  # steps between validations
    eval_tokens: int  # at most so many of the validation split
    save_every: int  # steps between checkpoints
    keep: int  # checkpoints kept
    log_every: int  # steps between lines where there is no terminal
    tensorboard: bool  # write them for TensorBoard too
    wandb: bool  # and send them to Weights & Biases

    hashes: dict[str, Any] = field(default_factory=dict)  # of data and checkpoint, once they are read

    @property
    def keeps_layers(self) -> bool:
        """Whether the model has its layers to the end, as no stage grows it."""
        return all(stage.layers is None for stage in self.stages)

    @property
    def teachers(self) -> dict[str, str]:
        """Who teaches, by domain; EVERYTHING of the only one."""
        return {EVERYTHING: self.teacher} if isinstance(self.teacher, str) else self.teacher or {}

    def to_json(self) -> dict[str, Any]:
        """The settings as plain data, for run.json."""
        return asdict(self)

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """'lr 0.001 (was 0.0003)' for each setting that a resumed run may not change and that differs."""
        now = self.to_json()
        now["stages"] = [{**stage, "tasks": list(stage["tasks"])} for stage in now["stages"]]
        # where validation decides how long a teacher teaches, its steps are part of what is computed
        free = set(FREE) - ({"eval_every"} if self.teacher_until == "overtaken" else set())
        different = [key for key in now if key not in free and now[key] != recorded.get(key)]
        words = {"stages": "other stages", "hashes": f"other bytes in {self._changed(recorded.get('hashes'))}"}
        return [words.get(key, f"{key} {now[key]!r} (was {shown(recorded.get(key))})") for key in different]

    def _changed(self, recorded: Any) -> str:
        """Which of the files that a run reads are others than those on record."""
        before = recorded if isinstance(recorded, dict) else {}
        names = sorted(self.hashes.keys() | before.keys())
        return ", ".join(shown(name)[1:-1] for name in names if self.hashes.get(name) != before.get(name))


def check(settings: Settings, world: int, positions: int | None) -> None:
    """Refuse settings that cannot be, before anything is loaded or written."""
    for option, value, known in (
        ("optimizer", settings.optimizer, OPTIMIZERS),
        ("decay", settings.decay, DECAYS),
        ("precision", settings.precision, PRECISIONS),
        ("teacher-schedule", settings.teacher_schedule, ALPHAS),
        ("teacher-until", settings.teacher_until or UNTIL[0], UNTIL),
        ("teacher-estimate", settings.teacher_estimate, (None, *ESTIMATES)),
        ("shard", settings.shard, SHARDS),
    ):
        if value not in known:
            raise RequestError(f"--{option} {value!r} is not one of {', '.join(filter(None, known))}")
    for option, number in (
        ("seq-len", settings.seq_len),
        ("batch-size", settings.batch_size),
        ("steps", settings.steps),
    ):
        if number < 1:
            raise RequestError(f"--{option} {number} should be 1 or more")
    for option, beta in (("beta1", settings.beta1), ("beta2", settings.beta2)):
        if not 0 <= beta < 1:
            raise RequestError(f"--{option} {beta} should be from 0 (keep nothing) to below 1 (keep everything)")
    exponent(settings.multipliers, 0)
    if settings.optimizer == "muon" and world > 1:
        raise RequestError(
            f"--optimizer muon needs every matrix whole, and {world} processes would divide them; start one process, or"
            " use --optimizer adamw"
        )
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
