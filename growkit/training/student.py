"""A model that learns, with its optimizer: made ready to train from a checkpoint, and written as one. Knows a stock model's life
in a run; ignorant of steps, losses and data.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from growkit.checkpoint.record import FORMAT
from growkit.checkpoint.source import read_json
from growkit.checkpoint.writer import write_json
from growkit.growth.optimizer import MULTIPLIERS, OPTIMIZER
from growkit.training.machine import Machine
from growkit.training.optim import adamw, load_state, stored_state
from growkit.training.prefix import layers_of
from growkit.training.routing import drop_in_experts, is_mixture
from growkit.training.settings import Settings

Save = Callable[[Any, Path, Mapping[str, Any]], None]  # model, folder, weights


class Student:
    """A model on its machine and AdamW over it, with state and rates taken over from the checkpoint's folder where they are."""

    def __init__(self, settings: Settings, machine: Machine, model: Any, folder: Path | None):
        s, self.machine = settings, machine
        layers = list(layers_of(model))
        self.depth = len(layers)
        if s.grad_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            # torch warns that layers without a graph have nothing to recompute: they are the ones that do not learn
            warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        if s.expert_dropout:
            drop_in_experts(model, s.expert_dropout)
        if s.compile if s.compile is not None else machine.device.type == "cuda" and not is_mixture(model):
            for layer in layers:
                layer.compile(dynamic=False)
        self.model = machine.spread(model, layers, s.shard)
        rates, moments = (None if folder is None else folder / name for name in (MULTIPLIERS, OPTIMIZER))
        self.multipliers = (read_json(rates).get("multipliers") if rates and rates.exists() else None) or {}
        self.optimizer = adamw(self.model, s.weight_decay, (s.beta1, s.beta2), s.eps, self.multipliers)
        if moments and moments.exists():
            load_state(self.optimizer, self.model, moments)

    def export(self, folder: Path, save: Save) -> None:
        """The model as a Hugging Face folder, AdamW's state and rates beside it. All processes call this together."""
        weights = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        moments = stored_state(self.optimizer, self.model)
        if self.machine.is_first:
            save(self.model, folder, weights)
            save_file(moments, folder / OPTIMIZER)
            rates = {"format": FORMAT, "optimizer": "AdamW", "multipliers": self.multipliers}
            write_json(folder / MULTIPLIERS, rates)
