"""Checkpoints that are planned and not made: what growing and training look at before they begin, and no weights. Knows
how a folder looks; ignorant of what is asked of it.
"""

from pathlib import Path

from growkit.checkpoint.companions import companion_files
from growkit.checkpoint.record import record_text
from growkit.checkpoint.source import PROVENANCE
from growkit.checkpoint.writer import layout, write_json
from growkit.growth.describe import describe
from growkit.growth.optimizer import OPTIMIZER, PLACE
from growkit.growth.plan import Plan
from growkit.growth.sources import open_source


def cast_shadow(plan: Plan, source: Path, folder: Path, keeps_state: bool) -> None:
    """Make a folder that is the result of a plan to all who read no weights: its files are as long, and hold nothing.

    source: the one checkpoint that the plan grows. keeps_state: whether AdamW's state will lie beside the weights.
    """
    folder.mkdir()
    for path in companion_files(source):
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = [(tensor.name, tensor.dtype, tensor.shape) for tensor in plan.tensors]
    headers, _, sizes = layout(tensors, sum(tensor.bytes for tensor in plan.tensors))
    for name, header in headers.items():
        with open(folder / name, "wb") as file:
            file.write(header)
            file.truncate(sizes[name])  # of zeros that take no room on most disks
    if keeps_state:
        (folder / PLACE).mkdir()
        (folder / PLACE / OPTIMIZER).touch()
    origin = open_source(source)
    origin.close()
    (folder / PROVENANCE).write_text(record_text(describe(plan, [origin], [origin.hashes()])), "utf-8")
    write_json(folder / "config.json", plan.config)
