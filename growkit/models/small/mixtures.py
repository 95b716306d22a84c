"""Soft mixtures of small experts on frozen linear layers: MoV and MoLoRA (arXiv 2309.05444). Knows what they compute;
ignorant of training and of files.

Every expert takes part in every token, by its share s = softmax(W_r x), which is computed in float32:

    MoV     h' = h * (1 + sum_i s_i d_i)                    d_i = l_i - 1 of the paper, at first 0
    MoLoRA  y' = W x + (alpha / r) sum_i s_i B_i A_i x      B_i at first 0

so that at the start nothing changes, bit for bit: with l_i = 1 the sum of the shares would only nearly be 1. Outputs
are mixed; a mean of the A_i times a mean of the B_i is another function. MoV scales keys and values, of which each head
asks the router by itself, and the hidden activation of feed-forward layers; MoLoRA is on every linear layer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

from growkit.families import family_named
from growkit.models.small.targets import LinearLayer, linear_layers, put_around, refuse_experts

MOV, MOLORA = "mov", "molora"
ROUTER, VECTORS, DOWN, UP = "router", "vectors", "down", "up"  # parameters; the last two are A and B of all experts


@dataclass(frozen=True, kw_only=True)
class SoftMixture:
    """What is put on a model. experts: of each layer. rank, alpha: of each LoRA; of no meaning for MoV."""

    kind: str
    experts: int
    rank: int = 0
    alpha: float = 0.0

    def put_on(self, model: Any) -> None:
        """Put the modules around a stock model's own ones, their parameters without memory (torch's meta device).

        Raises RequestError for a mixture of experts.
        """
        refuse_experts(family_named(model.config.model_type), self.kind)
        for layer in linear_layers(model):
            if self.kind == MOLORA or layer.scaled:
                inner = model.get_submodule(layer.module)
                put_around(model, layer.module, self._around(layer, inner))

    def _around(self, layer: LinearLayer, inner: Any) -> torch.nn.Module:
        out, into = inner.weight.shape[::-1] if layer.across else inner.weight.shape
        if self.kind == MOV:
            return MixedVectors(
                inner, self.experts, into if layer.reads_ffn else out, 0 if layer.reads_ffn else layer.heads
            )
        return MixedLoras(inner, self.experts, self.rank, self.alpha, out, into)


class MixedVectors(torch.nn.Module):
    """A linear layer whose input, or whose output head by head, is scaled. heads: 0 for the input."""

    def __init__(self, base_layer: Any, experts: int, width: int, heads: int):
        super().__init__()
        self.base_layer, self.heads = base_layer, heads
        self.router = _empty(experts, width // max(1, heads))
        self.vectors = _empty(experts, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        return self._scaled(self.base_layer(inputs)) if self.heads else self.base_layer(self._scaled(inputs))

    def _scaled(self, activation: torch.Tensor) -> torch.Tensor:
        by_head = activation.unflatten(-1, (max(1, self.heads), -1))
        vectors = self.vectors.to(activation.dtype).unflatten(-1, (max(1, self.heads), -1))
        shares = token_shares(by_head, self.router)
        change = torch.einsum("...he,ehd->...hd", shares.to(activation.dtype), vectors)
        return activation + activation * change.flatten(-2)


class MixedLoras(torch.nn.Module):
    """A linear layer with LoRAs beside it. `down` holds A of each expert, (experts rank, in), `up` B, (out, experts
    rank)."""

    def __init__(self, base_layer: Any, experts: int, rank: int, alpha: float, out: int, into: int):
        super().__init__()
        self.base_layer, self.rank, self.scale = base_layer, rank, alpha / rank
        self.router = _empty(experts, into)
        self.down = _empty(experts * rank, into)
        self.up = _empty(out, experts * rank)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        shares = token_shares(inputs, self.router).repeat_interleave(self.rank, -1)
        inner = linear(inputs, self.down.to(inputs.dtype))
        return self.base_layer(inputs) + linear(inner * shares.to(inner.dtype), self.up.to(inputs.dtype)) * self.scale


def token_shares(inputs: torch.Tensor, router: torch.Tensor) -> torch.Tensor:
    """(..., experts) float32: how much of each expert a token, or a head of it, takes. inputs: (..., in)."""
    with torch.autocast(inputs.device.type, enabled=False):
        return torch.softmax(linear(inputs.float(), router.float()), -1)


def _empty(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(shape, device="meta"))
