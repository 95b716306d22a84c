"""What is asked of a growth whose maps learn (LiGO, arXiv 2303.00980). Knows the words of a request; ignorant of how
maps learn, which takes a live model (growkit.training.learned_growth).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.errors import RequestError

LR, BATCH = 0.02, 16


@dataclass(frozen=True, kw_only=True)
class Learn:
    """How maps learn. steps: on batches of batch_size windows of seq_len tokens (None: 128, or as many as the model
    has) of a dataset, data. lr: how far a step moves a row of a map, beside its length. device: auto, cpu or cuda."""

    steps: int
    data: str
    lr: float = LR
    batch_size: int = BATCH
    seq_len: int | None = None
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """The request as plain data; data by its name, and no device."""
        stated = {**vars(self), "data": Path(self.data).name}
        return {key: value for key, value in stated.items() if key != "device" and value is not None}


def learn_of(
    steps: int | None, data: str | Path | None, lr: float | None, batch_size: int | None, seq_len: int | None,
    device: str,
) -> Learn | None:  # fmt: skip
    """What people ask of learning, None where they ask for none. Raises RequestError where half of it is said."""
    more = {"--data": data, "--learn-lr": lr, "--batch-size": batch_size, "--seq-len": seq_len}
    if steps is None:
        said = [option for option, value in more.items() if value is not None]
        if said:
            raise RequestError(f"{said[0]} is for maps that learn: add --learn STEPS, or leave it out")
        return None
    if data is None:
        raise RequestError("--learn needs text to learn from: add --data, a dataset of growkit tokenize")
    if not Path(data).exists():
        raise RequestError(
            f"--data {str(data)!r} does not exist; give a dataset of growkit tokenize, or a .bin file of tokens"
        )
    return Learn(
        steps=steps, data=str(data), lr=LR if lr is None else lr, batch_size=batch_size or BATCH, seq_len=seq_len,
        device=device,
    )  # fmt: skip
