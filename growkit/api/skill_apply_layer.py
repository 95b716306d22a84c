"""`growkit skill apply-layer`: an application over frozen skills, by the loop of `growkit tune`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit.api import run_words as r
from growkit.api import words as w
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public
from growkit.api.tune import Data, Epochs, Mix, Warmup, with_defaults_of_tune

if TYPE_CHECKING:
    from growkit.training.pretrain import Finished

Base = Annotated[w.PathLike, Argument("The model the skills are for, or a bundle of skills on one.", "BASE|BUNDLE")]
Skills = Annotated[
    Sequence[w.PathLike | tuple[w.PathLike, float]] | None,
    Argument("Folders of growkit skill learn; none behind a bundle.", "SKILL[:STRENGTH]...", may_lack=True),
]
StrengthsOnly = Annotated[
    bool, Option(help="Learn the strengths alone, and nothing that crosses from skill to skill.", panel="What learns")
]
Lr = Annotated[
    float | None, Option(help="Peak learning rate; default 0.004.", panel=r.RATE, metavar="X", within=(0, 1e38))
]


@public
def skill_apply_layer(
    checkpoint: Base,
    skills: Skills,
    data: Data,
    out: r.Out,
    *,
    strengths_only: StrengthsOnly = False,
    mix: Mix = None,
    steps: r.Steps = None,
    tokens: r.Tokens = None,
    epochs: Epochs = None,
    seq_len: r.SeqLen = None,
    batch_size: r.BatchSize = 32,
    grad_accum: r.GradAccum = 1,
    seed: r.Seed = 0,
    precision: r.Precision = "auto",
    device: r.Device = "auto",
    shard: r.Shard = "auto",
    compile: r.Compile = None,
    grad_checkpointing: r.GradCheckpointing = False,
    lr: Lr = None,
    warmup: Warmup = None,
    decay: r.Decay = "cosine",
    final_lr: r.FinalLr = 0.1,
    weight_decay: r.WeightDecay = 0.1,
    beta1: r.Beta1 = 0.9,
    beta2: r.Beta2 = 0.95,
    eps: r.Eps = 1e-8,
    clip: r.Clip = 1.0,
    eval_every: r.EvalEvery = 200,
    eval_tokens: r.EvalTokens = 100_000,
    save_every: r.SaveEvery = 500,
    keep: r.Keep = 2,
    log_every: r.LogEvery = 10,
    tensorboard: r.Tensorboard = False,
    wandb: r.Wandb = False,
    dry_run: r.DryRun = False,
    resume: r.Resume = "never",
    watch: r.Watch = quiet,
    announce: r.AnnounceRun = quiet,
) -> "Finished":
    """Learn an application of several skills, which stay as they are: how strong each is, and what crosses between.

    Every weight gets a strength for each skill, which begins with that of the line, and a matrix from what all of them
    read to where all of them put out, which begins as 0. skills: each a path, 'path:strength' or (path, strength). out:
    the run's folder; its final is the application, skills and all, which is also a LoRA of PEFT.

    Returns a Finished and raises as tune does; RequestError also for skills of another model, or of other weights.
    """
    words = dict(locals())
    from growkit.skills.apply_layer import learn_application, skills_of

    words["checkpoint"], chosen = skills_of(checkpoint, w.listed(words.pop("skills") or ()))
    return learn_application(chosen, not words.pop("strengths_only"), with_defaults_of_tune(words))
