"""Where one process computes. Knows what PyTorch finds here; ignorant of what is computed."""

import torch

from growkit.errors import RequestError

DEVICES = ("auto", "cpu", "cuda")


def device_named(name: str) -> torch.device:
    """The device of a name; auto: a GPU where there is one. Raises RequestError for one that is not there."""
    if name not in DEVICES:
        raise RequestError(f"--device {name!r} is not one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError(
            "--device cuda: PyTorch finds no GPU here; use --device cpu, or install a CUDA build of torch"
        )
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
