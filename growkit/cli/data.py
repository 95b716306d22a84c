"""The commands around training: tokenize, init, eval, teach. Knows what is shown of them; everything else is the
library's.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.data.tokenize import Dataset
    from growkit.models.evaluate import Evaluation
    from growkit.models.init import Initialised
    from growkit.training.teachers.teach import Written


def tokenizing(call: Callable[..., "Dataset"], as_json: bool) -> None:
    """Make a dataset with bars of the text that is read."""
    from growkit.cli import show_data

    with show_data.bars(as_json) as begin:
        dataset = call(begin=begin)
    show_data.dataset(dataset, as_json)


def initialising(call: Callable[..., "Initialised"], as_json: bool) -> None:
    """Say what was made of a config."""
    from growkit.cli import show_data

    show_data.initialised(call(), as_json)


def evaluating(call: Callable[..., "Evaluation"], as_json: bool) -> None:
    """Measure with a bar of windows."""
    from growkit.cli import show_data

    with show_data.bar("evaluating", as_json) as begin:
        evaluation = call(begin=begin)
    show_data.evaluation(evaluation, as_json)


def teaching(call: Callable[..., "Written"], as_json: bool) -> None:
    """Write down a teacher's words with a bar of windows. Of many processes the first one speaks."""
    from growkit.cli import show_data

    with show_data.bar("teaching", as_json) as begin:
        written = call(begin=begin)
    if os.environ.get("RANK", "0") == "0":
        show_data.written(written, as_json)


command(api.tokenize, tokenizing, interrupted=KEPT)
command(api.init, initialising, interrupted=KEPT)
command(api.evaluate, evaluating, "eval")
command(api.teach, teaching, interrupted="interrupted; --resume auto goes on where it was")
