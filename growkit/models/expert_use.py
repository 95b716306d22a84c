"""Which experts of a mixture a text needs most, and so how many copies each gets. Knows live mixtures and their
gradients; ignorant of how experts are copied.

What an expert does for a text is told by |weight x gradient| of the loss of the text, summed over its weights: what the
loss would change by, to first order, if they were 0 (the utility of Expert Upcycling, arXiv 2604.19835).
"""

from pathlib import Path

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, Checkpoint
from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.families.stacked import expert_of, split_experts
from growkit.growth.sources import open_source
from growkit.growth.width.sizes import target_sizes
from growkit.models.running import load_model, loadable, sequences_for, tokenizer_of
from growkit.models.verify import room_for

SEQUENCES, LENGTH = 64, 128  # of the text, spread over its length


def copies_for(source: str | Path, text: str | Path, experts: int, seed: int) -> dict[int, tuple[int, ...]]:
    """By layer, from 0: how many copies of each expert there are among `experts`, more of those the text needs more.

    Loads the model in float32 with gradients of its experts. Raises RequestError for what is no mixture, for fewer
    experts than it has, where it does not fit in memory or where the text is too short.
    """
    checkpoint = open_source(source)
    try:
        config = checkpoint.config or {}
        family = family_named(config.get("model_type"))
        target_sizes(family, config, {"expert": experts})  # refuses what cannot be
        found = utilities(checkpoint, family, text, seed)
    finally:
        checkpoint.close()
    return {layer: dealt_out(utility, experts) for layer, utility in sorted(found.items())}


def dealt_out(utility: torch.Tensor, experts: int) -> tuple[int, ...]:
    """How many of `experts` copies each of the experts gets: one, and each more goes where a copy does most."""
    counts = torch.ones(len(utility), dtype=torch.float64)
    for _ in range(experts - len(utility)):
        counts[(utility / counts).argmax()] += 1
    return tuple(int(count) for count in counts)


def utilities(checkpoint: Checkpoint, family: Family, text: str | Path, seed: int) -> dict[int, torch.Tensor]:
    """(experts,) by layer: the sum of |weight x gradient| of each expert for a text."""
    lacking = room_for(2 * sum(tensor.elements for tensor in checkpoint.tensors.values()), "finding what experts do")
    if lacking:
        raise RequestError(lacking)
    with loadable(checkpoint) as folder:
        config = read_model_config(folder / CONFIG)
        tokenizer = tokenizer_of(folder)
        sequences = sequences_for(config, tokenizer, text, seed, checkpoint.label, SEQUENCES, LENGTH)
        model, _ = load_model(config, folder, torch.float32)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(map(family.holds_experts, split_experts(family, {name: parameter}))))
        for ids in sequences:
            logits = model(input_ids=ids[None]).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits.float(), ids[1:], reduction="sum").backward()
        products = {
            name: (parameter.detach() * parameter.grad).abs()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    count = family.number(config, family.sizes["expert"])
    found: dict[int, torch.Tensor] = {}
    for name, product in split_experts(family, products).items():
        layer = family.layer_of(name)
        assert layer is not None, "experts are in layers"
        sums = found.setdefault(layer, torch.zeros(count, dtype=torch.float64))
        if family.of_each_expert(name):
            sums[expert_of(family, name)] += product.double().sum()
        else:
            sums += product.double().flatten(1).sum(1)
    return found
