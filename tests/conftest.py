"""For all tests: one thread (tiny models only wait for a second one), no network, no clock to lose against."""

import functools
import gc
import os

import pytest
import torch
import typer.testing
from costs import (  # noqa: F401  hooks of pytest's
    pytest_addoption,
    pytest_runtest_logstart,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
# what several test files need: let a failed assertion in it say as much as one in a test
pytest.register_assert_rewrite("comparing", "fuzz", "halting", "on_disk", "refusing", "texts", "tiny", "tiny_runs")
# the program is put together from its commands once, not for every line that a test runs
typer.testing._get_command = functools.cache(typer.testing._get_command)


def pytest_collection_finish():
    """What was imported until now stays: the garbage collector need not go through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Tiny checkpoints to train, and data for them."""
    import tiny
    import tiny_runs

    folder = tmp_path_factory.mktemp("world")
    tiny_runs.dataset(folder / "data", 4000)
    for family in ("gpt2", "bert", "roberta"):  # gpt2 and bert have dropout
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
    for family in ("bert", "roberta"):
        tiny_runs.tokenizer().save_pretrained(folder / family)
    tiny.make("llama", dtype=torch.float32, num_hidden_layers=1).save_pretrained(folder / "llama")
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "llama3")
    tiny.make("llama", dtype=torch.float32, tie_word_embeddings=True).save_pretrained(folder / "tied")
    tiny.make("gpt2", dtype=torch.float32, seed=4, n_layer=1).save_pretrained(folder / "teacher")
    return folder
