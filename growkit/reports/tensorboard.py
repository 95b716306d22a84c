"""Metrics for TensorBoard, beside metrics.jsonl. Knows its writer; ignorant of runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from growkit.errors import RequestError


def check_tensorboard() -> None:
    """Raises RequestError without the extra."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise RequestError("--tensorboard needs an extra: pip install 'growkit[tensorboard]'") from None


def tensorboard(folder: Path) -> Callable[[dict[str, Any]], None]:
    """What writes a line of metrics as scalars kind/name at its step. Raises RequestError without the extra."""
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def write(line: dict[str, Any]) -> None:
        if line["kind"] not in ("train", "val"):
            return
        domains = {f"loss/{name}": loss for name, loss in line.get("domains", {}).items()}
        for name, value in (line | domains).items():
            if isinstance(value, (int, float)) and name != "step":
                writer.add_scalar(f"{line['kind']}/{name}", value, line["step"])
        writer.flush()

    return write
