"""What --train may name, as rows of one table: who learns, what the run leaves, and at which rate where nothing is
said. Knows the words; ignorant of how a run is carried out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from growkit.checkpoint.inserted import inserted_layers
from growkit.checkpoint.source import Checkpoint
from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.growth.width.sizes import read_sizes
from growkit.limits import EXPERTS
from growkit.models.small.mixtures import MOLORA, MOV
from growkit.models.small.targets import refuse_experts
from growkit.training.learning.learners import AllLearn, Course, Learners, WholeCourse
from growkit.training.learning.parts import MIXTURE_PARTS, LayersLearn, MixturePartLearns
from growkit.training.learning.small_modules import SmallModule, check_peft, control, ia3, lora, mixture
from growkit.training.learning.small_saved import MixtureFolder, PeftFolder
from growkit.training.saved import Saved, WholeModel
from growkit.training.stages import Stage

ALL = "all"
# full fine-tuning; a mixture takes a higher rate than its dense model (ST-MoE, arXiv 2202.08906 section 4.3)
DENSE_RATE, MIXTURE_RATE = 2e-5, 5e-5
LORA, LORA_MLP, IA3, CONTROL = "lora", "lora-mlp", "ia3", "control"
RANKS = {LORA: 16, LORA_MLP: 16, CONTROL: 64, MOLORA: 4}  # where nothing is said
MIXED_EXPERTS = 10


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A word of --train, and the model it is said of."""

    word: str  # as it was written, such as "top:2"
    numbers: tuple[int, ...]  # behind its colons
    source: Checkpoint  # closed
    family: Family
    config: dict[str, Any]

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return read_sizes(self.family, self.config)["layer"]

    def rank(self, place: int, usual: int) -> int:
        """The rank among the numbers, or the usual one. Raises RequestError for one beyond the model's hidden size."""
        most = read_sizes(self.family, self.config)["hidden"]
        rank = self.numbers[place] if place < len(self.numbers) else min(usual, most)
        if not 1 <= rank <= most:
            raise RequestError(f"--train {self.word} should name a rank from 1 to the model's {most} hidden")
        return rank


@dataclass(frozen=True)
class Trained:
    """Who learns in a run, and what it leaves. module: what writes a small module alone, of the checkpoint that the run
    begins with; None: the whole model is left. course: what its validations decide. reads: hashes of what it reads
    beside the model and the data, by name."""

    learners: Learners
    module: Callable[[Checkpoint], Saved] | None = None
    course: Course = field(default_factory=WholeCourse)
    reads: Mapping[str, Any] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Whether a small module is left, without the model."""
        return self.module is not None

    def saved(self, origin: Checkpoint, template: Path | None = None) -> Saved:
        """What writes the result. template: a chat template that the whole model gets instead of its own."""
        return WholeModel(origin, template) if self.module is None else self.module(origin)


@dataclass(frozen=True, kw_only=True)
class TrainWord:
    """A row of the table."""

    form: str  # how people write it, such as "top:N"
    numbers: tuple[int, int]  # the least and the most numbers behind its colons
    choose: Callable[[Wanted], Trained]  # raises RequestError for a model that has no such part
    lr: float | None = None  # the peak where nothing is said; None: as in full fine-tuning


def _top(wanted: Wanted) -> Trained:
    count, layers = wanted.numbers[0], wanted.layers
    if not 1 <= count <= layers:
        raise RequestError(f"--train {wanted.word} should name from 1 to the model's {layers} layers")
    return Trained(LayersLearn(range(layers - count, layers)))


def _inserted(wanted: Wanted) -> Trained:
    numbers = inserted_layers(wanted.source.folder, wanted.layers)
    if not numbers:
        raise RequestError(
            f"--train inserted: growkit.json of {wanted.source.label!r} says of no layer that a growth inserted it; stack"
            " --method identity inserts some"
        )
    return Trained(LayersLearn(numbers))


def _mixture_part(wanted: Wanted) -> Trained:
    if not wanted.family.is_moe:
        raise RequestError(f"--train {wanted.word} is a part of mixtures of experts; {wanted.source.label!r} has none")
    return Trained(MixturePartLearns(wanted.word))


def _adapter(wanted: Wanted) -> Trained:
    """lora, lora-mlp, ia3, control: what PEFT loads."""
    kind = wanted.word.split(":")[0]
    if kind != CONTROL:
        check_peft()
    if kind != LORA:
        refuse_experts(wanted.family, f"--train {wanted.word}")
    ranked: dict[str, Callable[[int], SmallModule]] = {
        LORA: lora,
        LORA_MLP: partial(lora, feed_forward_alone=True),
        CONTROL: control,
    }
    learners = ia3() if kind == IA3 else ranked[kind](wanted.rank(0, RANKS[kind]))
    return Trained(learners, lambda origin: PeftFolder(origin, kind))


def _mixed(wanted: Wanted) -> Trained:
    """mov, molora: growkit's own."""
    kind = wanted.word.split(":")[0]
    refuse_experts(wanted.family, f"--train {wanted.word}")
    experts = wanted.numbers[0] if wanted.numbers else MIXED_EXPERTS
    if not 1 <= experts <= EXPERTS:
        raise RequestError(f"--train {wanted.word} should name from 1 to {EXPERTS} experts")
    learners, soft = mixture(kind, experts, wanted.rank(1, RANKS[MOLORA]) if kind == MOLORA else 0)
    return Trained(learners, lambda origin: MixtureFolder(origin, soft))


WORDS: dict[str, TrainWord] = {
    ALL: TrainWord(form=ALL, numbers=(0, 0), choose=lambda _: Trained(AllLearn())),
    "top": TrainWord(form="top:N", numbers=(1, 1), choose=_top),
    "inserted": TrainWord(form="inserted", numbers=(0, 0), choose=_inserted),
    LORA: TrainWord(form="lora[:r]", numbers=(0, 1), choose=_adapter, lr=2e-4),
    LORA_MLP: TrainWord(form="lora-mlp[:r]", numbers=(0, 1), choose=_adapter, lr=2e-4),
    IA3: TrainWord(form=IA3, numbers=(0, 0), choose=_adapter, lr=3e-3),
    CONTROL: TrainWord(form="control[:r]", numbers=(0, 1), choose=_adapter, lr=4e-3),
    MOV: TrainWord(form="mov[:n]", numbers=(0, 1), choose=_mixed, lr=3e-4),
    MOLORA: TrainWord(form="molora[:n[:r]]", numbers=(0, 2), choose=_mixed, lr=3e-4),
    **{part: TrainWord(form=part, numbers=(0, 0), choose=_mixture_part) for part in MIXTURE_PARTS},
}


def usual_rate(word: str, family: Family) -> float:
    """The peak of the learning rate for a word of --train where nothing is said. Raises RequestError for no such
    word."""
    row = _parsed(word)[0]
    return row.lr or (MIXTURE_RATE if family.is_moe else DENSE_RATE)


def trained(word: str, source: Checkpoint, stages: tuple[Stage, ...] = ()) -> Trained:
    """Who learns and what is left, of a model that a run begins with. Raises RequestError for no such word, for a model
    that has no such part, and for stages that say otherwise."""
    row, numbers = _parsed(word)
    for stage in stages if word != ALL else ():
        said = {"sub_layers": stage.sub_layers, "train_top": stage.train_top, "layers": stage.layers}
        twice = next((key for key, value in said.items() if value is not None), None)
        if twice is not None:
            raise RequestError(
                f"--train {word} says which parameters learn, and so does stage {stage.name!r} with its {twice}; leave one"
                " of them out"
            )
    config = source.config or {}
    family = family_named(config.get("model_type"))
    return row.choose(Wanted(word=word, numbers=numbers, source=source, family=family, config=config))


def _parsed(word: str) -> tuple[TrainWord, tuple[int, ...]]:
    name, *numbers = str(word).split(":")
    row = WORDS.get(name)
    if row is None:
        raise RequestError(f"--train {str(word)!r} is not one of {', '.join(row.form for row in WORDS.values())}")
    least, most = row.numbers
    if not least <= len(numbers) <= most or not all(n.isascii() and n.isdigit() and len(n) < 10 for n in numbers):
        raise RequestError(f"--train {word!r} should be written as {row.form}")
    return row, tuple(map(int, numbers))
