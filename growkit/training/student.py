"""A model that learns, with its optimizer: made ready to train from a checkpoint. Knows a stock model's life in a run;
ignorant of steps, losses and data.
"""

import warnings
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from growkit.families import family_named
from growkit.growth.muon_rules import MUON, raised
from growkit.growth.optimizer import kept_rates, kept_state, read_rates
from growkit.models.live_layers import layers_of
from growkit.training.blank import Blank
from growkit.training.capacity import Capacity
from growkit.training.learning.learners import Learners
from growkit.training.machine import Machine
from growkit.training.muon import muon_and_adamw
from growkit.training.optim import adamw, load_state, relax
from growkit.training.routing import drop_in_experts, is_mixture
from growkit.training.settings import OPTIMIZERS, Settings
from growkit.training.sharing import give_memory


class Student:
    """A model on its machine and an optimizer over what learns of it, with state and rates taken over from the
    checkpoint's folder where they are. capacity: the limit on a mixture's experts, where there is one. multipliers:
    those that the checkpoint came with."""

    def __init__(self, settings: Settings, machine: Machine, blank: Blank, learners: Learners):
        s, model, folder = settings, blank.model, blank.folder
        self.machine = machine
        layers = list(layers_of(model))
        self.depth = len(layers)
        if s.grad_checkpointing:
            # later transformers 5 have a new name and warn of the old one, which 6 will not have
            recompute = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            recompute({"use_reentrant": False})
            # torch warns that layers without a graph have nothing to recompute: they are the ones that do not learn
            warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        if s.expert_dropout:
            drop_in_experts(model, s.expert_dropout)
        self.capacity = Capacity(model, s.capacity) if s.capacity else None
        begin = learners.choose(model)
        if s.compile if s.compile is not None else machine.device.type == "cuda" and not is_mixture(model):
            for layer in layers:
                layer.compile(dynamic=False)
        self.model = machine.spread(model, layers, s.shard)
        give_memory(self.model, machine.device)
        blank.fill()
        if begin is not None:
            begin(self.model, s.seed)
        self.multipliers, self._exponent = read_rates(kept_rates(folder)), 1.0
        self.optimizer_name = OPTIMIZERS[s.optimizer]
        told = s.weight_decay, (s.beta1, s.beta2), s.eps, self.multipliers
        if self.optimizer_name == MUON:
            self.optimizer: torch.optim.Optimizer = muon_and_adamw(
                self.model, family_named(blank.model.config.model_type), *told
            )
        else:
            self.optimizer = adamw(self.model, *told)
        if (moments := kept_state(folder)) is not None:
            load_state(self.optimizer, self.model, moments)

    def keep_multipliers(self, exponent: float) -> None:
        """Let multipliers m act as m^exponent from now on."""
        self._exponent = exponent
        relax(self.optimizer, exponent)

    def acting_multipliers(self) -> dict[str, dict[str, Any]]:
        """What has become of the multipliers that the checkpoint came with."""
        return {name: raised(said, self._exponent) for name, said in self.multipliers.items()}

    def settle(self) -> None:
        """Put every parameter back into its shares: a layer that a process had whole for a forward pass may still
        be."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
