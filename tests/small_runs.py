"""Runs on small modules, for their tests."""

from tiny_runs import ask

from growkit.training import pretrain

WORDS = {
    "lora": "lora:4",
    "lora-mlp": "lora-mlp:4",
    "ia3": "ia3",
    "control": "control:4",
    "mov": "mov:3",
    "molora": "molora:3:2",
}


def opened(world, out, word, resume=False, watch=lambda _: None, **asked):
    return pretrain.open_run(ask(world, out, train=WORDS.get(word, word), **asked), resume, watch)


def begun(world, word, model="llama", **asked):
    """A run that has not made a step."""
    run = opened(world, f"begun-{model}", word, model=model, **asked)
    run.begin()
    run.release()
    return run


def run_on(world, out, word, resume=False, watch=lambda _: None, **asked):
    """The run of a word, carried out."""
    return pretrain.carry_through(opened(world, out, word, resume, watch, **asked), resume).run
