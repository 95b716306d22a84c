"""Control of a frozen linear layer by a small matrix: W + U R V^T, of which R alone learns (LoRA-XS, arXiv 2405.17604).
Knows one layer; ignorant of which there are.

U (out, r) and V (in, r) are the top singular vectors of W; R (r, r) is at first 0, so that nothing changes. Beyond the
rank of W they hold zeros. The sum is a LoRA with A = V^T, B = U R and alpha = r.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear, normalize, pad

from growkit.merging.operators.subspace import low_rank
from growkit.models.small.targets import linear_layers, put_around
from growkit.operators.seeds import generator

MIDDLE = "middle"
ITERATIONS = 10  # as LoRA-XS has them


class Control(torch.nn.Module):
    """A linear layer with R beside it, the parameter `middle`. across: its weight is stored (in, out). outputs, inputs:
    how many directions of either side R is between. rank: of the LoRA that it is as a file, at least all inputs, which
    it is where nothing is said.

    U and V are buffers, and so lie in checkpoints: another machine may give vectors another sign.
    """

    def __init__(self, base_layer: Any, across: bool, outputs: int, inputs: int, rank: int | None = None):
        super().__init__()
        out, into = base_layer.weight.shape[::-1] if across else base_layer.weight.shape
        self.base_layer, self.across, self.rank = base_layer, across, inputs if rank is None else rank
        self.middle = torch.nn.Parameter(torch.empty(outputs, inputs, device="meta"))
        self.left: torch.Tensor
        self.right: torch.Tensor
        self.register_buffer("left", torch.zeros(out, outputs))
        self.register_buffer("right", torch.zeros(inputs, into))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        inner = linear(inputs, self.right.to(inputs.dtype))
        changed = linear(linear(inner, self.middle.to(inner.dtype)), self.left.to(inner.dtype))
        return self.base_layer(inputs) + changed

    def as_lora(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A (rank, in) and B (out, rank) of the LoRA that it is, whose alpha is the rank, zeros beyond its directions.
        All processes call this together."""
        more = self.rank - len(self.right)
        return pad(self.right.cpu(), (0, 0, 0, more)), pad(self.output().cpu(), (0, more))

    def output(self) -> torch.Tensor:
        """(out, inputs): what comes out for each of the input directions. All processes call this together."""
        return self.left @ whole(self.middle)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that processes may share, which call this together."""
    given: Any = tensor
    return given.full_tensor() if isinstance(given, DTensor) else given


def put_control(model: Any, rank: int) -> None:
    """Put a Control around every linear layer of attention and feed-forward of a stock model, without memory for R."""
    for layer in linear_layers(model):
        put_around(model, layer.module, Control(model.get_submodule(layer.module), layer.across, rank, rank))


def controls(model: torch.nn.Module) -> Iterator[tuple[str, Control]]:
    """The Controls of a model, with the names of the modules they are around."""
    for name, module in model.named_modules():
        if isinstance(module, Control):
            yield name, module


@torch.no_grad()
def take_singular_vectors(model: torch.nn.Module, seed: int) -> None:
    """Fill U and V of every Control from the weight it is on: the same on all processes, which call this together."""
    for name, control in controls(model):
        weight = whole(control.base_layer.weight)
        if not dist.is_initialized() or dist.get_rank() == 0:
            matrix = weight.float().cpu()
            matrix = matrix.T if control.across else matrix
            b, a = low_rank(matrix, len(control.middle), generator(seed, name), ITERATIONS)
            control.left.copy_(normalize(b, dim=0))
            control.right.copy_(normalize(a, dim=1))
        for vectors in (control.left, control.right) if dist.is_initialized() else ():
            dist.broadcast(vectors, 0)


@torch.no_grad()
def as_lora(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the Controls of a model are as a LoRA of PEFT, by its names within the model. All processes call this
    together."""
    tensors = {}
    for name, control in controls(model):
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = control.as_lora()
    return tensors
