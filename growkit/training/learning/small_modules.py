"""Small modules that learn on a frozen stock model. Knows what each adds and its first values; ignorant of steps and of
what is saved.

Parameters are added before the model has memory, and get their first values when its weights are there: drawn whole
from a seed and the parameter's name, of which each process takes its own rows.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.families import family_named
from growkit.models.small.mixtures import DOWN, ROUTER, UP, VECTORS, SoftMixture
from growkit.models.small.targets import endings, linear_layers, stacked_experts
from growkit.operators.seeds import generator
from growkit.training.learning.control import MIDDLE, put_control, take_singular_vectors
from growkit.training.prefix import submodel
from growkit.training.sharing import own_rows
from growkit.training.step import PlannedStep

DEVIATION = 0.02  # of what is drawn from a normal distribution, as MoV and MoLoRA have it
MIXED_ALPHA = 16.0  # of MoLoRA's LoRAs


def _uniform(whole: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """As PEFT has it: within the inverse root of what one output reads."""
    return whole.uniform_(-(whole.shape[1] ** -0.5), whole.shape[1] ** -0.5, generator=draws)


def _normal(whole: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    return whole.normal_(0.0, DEVIATION, generator=draws)


def _zeros(whole: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return whole.zero_()


def _ones(whole: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return whole.fill_(1.0)


# a part of an added parameter's name -> its first values, by a function (whole tensor, generator)
FIRST: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "lora_A": _uniform, "lora_B": _zeros, "ia3_l": _ones, MIDDLE: _zeros,
    ROUTER: _normal, VECTORS: _zeros, DOWN: _normal, UP: _zeros,
}  # fmt: skip


@dataclass(frozen=True)
class SmallModule:
    """Learners that are added. add: called with a stock model without memory."""

    add: Callable[[Any], None]

    def choose(self, model: Any) -> Callable[[Any, int], None]:
        """Nothing of the model learns but what is added; returns what gives that its first values."""
        model.requires_grad_(False)
        self.add(model)
        return first_values

    def in_step(self, model: Any, plan: PlannedStep) -> AbstractContextManager[None]:
        """The prefix of the step, as submodel makes it."""
        return submodel(model, plan.depth, plan.trained)


@torch.no_grad()
def first_values(model: torch.nn.Module, seed: int) -> None:
    """Give what learns in a model its first values. All processes call this together."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            first, rows = own_rows(parameter)
            draw = next(FIRST[word] for word in reversed(name.split(".")) if word in FIRST)
            whole = draw(torch.empty(parameter.shape), generator(seed, name))
            rows.copy_(whole[first : first + len(rows)])
    take_singular_vectors(model, seed)


def lora(rank: int, feed_forward_alone: bool = False) -> SmallModule:
    """PEFT's LoRA on every linear layer, or on those of feed-forward alone, alpha 2 r; of a mixture on those of
    attention, and on the experts through target_parameters."""

    def add(model: Any) -> None:
        import peft

        family = family_named(model.config.model_type)
        stacked = {family.template(name).partition("{layer}.")[2] for name in stacked_experts(model)}
        # PEFT takes linear layers that are called as the parts of a mixture's experts were once for these experts
        layers = [layer for layer in linear_layers(model) if not (stacked and layer.feed_forward)]
        layers = [layer for layer in layers if layer.feed_forward or not feed_forward_alone]
        _inject(
            model,
            peft.LoraConfig(
                r=rank,
                lora_alpha=2 * rank,
                target_modules=_endings(model, [layer.module for layer in layers]),
                target_parameters=sorted(stacked) or None,
                fan_in_fan_out=any(layer.across for layer in layers),
            ),
        )

    return SmallModule(add)


def ia3() -> SmallModule:
    """PEFT's IA3 (arXiv 2205.05638): keys, values and hidden activations of feed-forward layers are scaled."""

    def add(model: Any) -> None:
        import peft

        layers = linear_layers(model)
        inputs = _endings(model, [layer.module for layer in layers if layer.reads_ffn])
        outputs = _endings(model, [layer.module for layer in layers if layer.heads])
        _inject(
            model,
            peft.IA3Config(
                target_modules=[*outputs, *inputs],
                feedforward_modules=inputs,
                fan_in_fan_out=any(layer.across for layer in layers),
            ),
        )

    return SmallModule(add)


def control(rank: int) -> SmallModule:
    """W + U R V^T on every linear layer; see growkit.training.learning.control."""
    return SmallModule(lambda model: put_control(model, rank))


def mixture(kind: str, experts: int, rank: int = 0) -> tuple[SmallModule, SoftMixture]:
    """MoV or MoLoRA, and what its folder says of it; see growkit.models.small.mixtures."""
    soft = SoftMixture(kind=kind, experts=experts, rank=rank, alpha=MIXED_ALPHA if rank else 0.0)
    return SmallModule(soft.put_on), soft


def check_peft() -> None:
    """Raises RequestError where PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise RequestError("--train lora and ia3 need PEFT; pip install peft") from None


def _endings(model: Any, chosen: list[str]) -> list[str]:
    every = [name for name, module in model.named_modules() if name and not any(True for _ in module.children())]
    return sorted({*endings(every, {*chosen}).values()})


def _inject(model: Any, settings: Any) -> None:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights and the like, which stay as they are
        peft.inject_adapter_in_model(settings, model, low_cpu_mem_usage=True)
