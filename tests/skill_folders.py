"""Small modules with random weights, as folders, and gates that open for given sequences: for tests of what is on a model
and needs no learning."""

from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file

from growkit.checkpoint.writer import write_json
from growkit.models.small.mixtures import SoftMixture
from growkit.models.small.small_file import small_settings
from growkit.skills.gates.gate import Gate
from growkit.skills.gates.hidden_states import pooled_states


def peft_folder(model, folder, config, seed=0):
    """What PEFT saves of a config on a model, its weights drawn at random. The model is spoiled by it."""
    adapted = peft.get_peft_model(model, config)
    draws = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "ia3_" in name:
            parameter.data = float("ia3_" in name) + 0.3 * torch.randn(parameter.shape, generator=draws)
    adapted.save_pretrained(folder)
    return Path(folder)


def lora_folder(model, folder, seed=0, **settings):
    """A LoRA on every linear layer."""
    usual = dict(r=3, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=model.config.model_type == "gpt2")
    return peft_folder(model, folder, peft.LoraConfig(**{**usual, **settings}), seed)


def mixture_folder(model, folder, kind="mov", seed=0):
    """A soft mixture. The model is spoiled by it."""
    mixture = SoftMixture(kind=kind, experts=2, rank=2, alpha=4.0)
    before = {*dict(model.named_parameters())}
    mixture.put_on(model)
    draws = torch.Generator().manual_seed(seed)
    added = {name: p for name, p in model.named_parameters() if p.is_meta}
    assert not {*added} & before
    Path(folder).mkdir(parents=True)
    tensors = {name: 0.3 * torch.randn(p.shape, generator=draws) for name, p in added.items()}
    save_file(tensors, Path(folder) / "small_module.safetensors")
    write_json(Path(folder) / "small_module.json", small_settings(mixture))
    return Path(folder)


@dataclass(frozen=True, kw_only=True)
class ListedGate(Gate):
    """A gate whose skills open for given states and no others. known: (sequences, hidden) of each skill."""

    known: tuple[torch.Tensor, ...]

    def _scores(self, state):
        return torch.tensor([float((own.double() == state).all(1).any()) for own in self.known]).double()


def gate_for(model, own, together=(), layer=2):
    """A gate whose skills open for exactly these sequences. own: sequences of each skill by its name."""
    none = torch.zeros(len(own), dtype=torch.float64)
    return ListedGate(
        layer=layer,
        names=tuple(own),
        ranges=(),
        directions=torch.zeros(len(own), model.config.hidden_size).double(),
        offsets=none,
        thresholds=none,
        together=frozenset(together),
        known=tuple(pooled_states(model, ids, layer) for ids in own.values()),
    )
