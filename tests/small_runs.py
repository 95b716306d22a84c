"""Runs on small modules, for their tests."""

from tiny_runs import ask

from growkit.training import pretrain
from growkit.training import small_modules as sm
from growkit.training.small_saved import MixtureFolder, PeftFolder

WORDS = ("lora", "ia3", "control", "mov", "molora")


def small(word):
    kind, *numbers = word.split(":")
    numbers = [int(number) for number in numbers]
    if kind in ("mov", "molora"):
        learners, soft = sm.mixture(kind, *(numbers or {"mov": [3], "molora": [3, 2]}[kind]))
        return learners, lambda origin: MixtureFolder(origin, soft)
    learners = {"lora": sm.lora, "control": sm.control}[kind](*(numbers or [4])) if kind != "ia3" else sm.ia3()
    return learners, lambda origin: PeftFolder(origin, kind)


def opened(world, out, word, resume=False, watch=lambda _: None, **asked):
    learners, saved = small(word)
    return pretrain.open_run(ask(world, out, **asked), resume, watch, learners, saved)


def begun(world, word, model="llama", **asked):
    """A run that has not made a step."""
    run = opened(world, f"begun-{model}", word, model=model, **asked)
    run.begin()
    run.release()
    return run


def run_on(world, out, word, resume=False, watch=lambda _: None, **asked):
    """The run of a word, carried out."""
    return pretrain.carry_through(opened(world, out, word, resume, watch, **asked), resume).run
