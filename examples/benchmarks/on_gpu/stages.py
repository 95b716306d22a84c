"""What growkit's stages cost on a GPU, in steps of the model they are of: prefixes, teachers, experts."""

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from on_gpu.bed import Bed, speed
from on_gpu.shapes import SKIPPED, llama, settings, shapes

import growkit

NAME = "llama-350m"
STEPS = 25  # a first stage draws a prefix for each
TAUGHT = 1 << 18, 1 << 22  # tokens that a teacher speaks of: of a small model, and else


def stages(bed: Bed) -> None:
    """A full step of a 350 M Llama, and the others beside it."""
    shape, steps = shapes(bed)[NAME], 8 if bed.small else STEPS
    model, layers = bed.model(NAME, shape.config), shape.config["num_hidden_layers"]
    small = llama(64, 128, 2, shape.length, 600) if bed.small else llama(640, 1728, 14, shape.length, 32000)
    teacher, store, tokens = bed.model("third", small), bed.work / "third-store", bed.work / "taught.bin"
    tokens.write_bytes((bed.data / "train.bin").read_bytes()[: 2 * TAUGHT[not bed.small]])
    ours = partial(speed, bed, steps=steps, skipped=SKIPPED, **settings(bed, shape))
    word: dict[str, Any] = dict(teacher_steps=10 * steps, teacher_weight=1.0, teacher_until="steps")
    first = dict(schedule="two-stage", sub_layers=max(1, layers // 4), sub_steps=steps + 1)
    base: dict[str, Any] = {}

    def beside(**options: Any) -> dict[str, Any]:
        said = ours(**{"checkpoint": model, **options})
        base.setdefault("median", said["median"])
        return {**said, "of_a_full_step": said["median"] / base["median"]}

    bed.check("full step", 60, beside)
    bed.check("a step of the first stage, L/4", 60, lambda: beside(**first))
    bed.check("teach", 60, lambda: taught(bed, teacher, tokens, store, shape.length))
    bed.check("with a live teacher of a third", 60, lambda: beside(teacher=teacher, **word))
    bed.check("with that teacher's store", 60, lambda: beside(teacher=store, data=tokens, **word))
    bed.check("as a mixture of 8, top 2", 120, lambda: beside(checkpoint=mixture(bed, model)))


def taught(bed: Bed, teacher: Path, tokens: Path, store: Path, length: int) -> dict[str, Any]:
    """Seconds in which a teacher speaks of a billion tokens, by the second of two passes."""
    for _ in range(2):
        shutil.rmtree(store, ignore_errors=True)
        began = time.monotonic()
        growkit.teach(teacher, tokens, store, seq_len=length, device=bed.device)
        took = time.monotonic() - began
    count = tokens.stat().st_size // 2
    return {"tokens": count, "seconds_per_billion_tokens": took / count * 1e9}


def mixture(bed: Bed, model: Path) -> Path:
    """The model with eight copies of its feed-forwards, of which a token takes two."""
    folder = bed.work / f"{model.name}-e8"
    if not folder.exists():
        growkit.upcycle(model, folder, experts=8, top_k=2)
    return folder
