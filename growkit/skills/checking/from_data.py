"""What skills put out on each other's data, from the data: second moments of what every input reads, layer by layer.
Knows a live base and rows; ignorant of what follows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from growkit.data.batches import Batch
from growkit.families import Family
from growkit.skills.checking.checked_skills import CheckedSkill
from growkit.skills.checking.from_sketches import Measured
from growkit.skills.checking.rho import output_energy
from growkit.skills.controlled import InputGroup
from growkit.skills.layer_inputs import LayerInputs

Moments = dict[str, torch.Tensor]  # C (in, in) float64 by whose data


def moments_of_data(
    model: Any, family: Family, groups: Sequence[InputGroup], rows: Mapping[str, Batch]
) -> Iterator[tuple[InputGroup, Moments]]:
    """E[x x^T] of every group's input over the data of each skill, group after group. model: the base in eval mode,
    nothing on it. Those of one layer are in memory at a time, and the hidden states of all data."""
    live = {family.stem(name): name.removesuffix(".weight") for name, _ in model.named_parameters()}
    device = next(model.parameters()).device
    inputs = {
        name: LayerInputs(model, batch.inputs.to(device), real=(batch.places >= 0).to(device))
        for name, batch in rows.items()
    }
    for layer in sorted({group.layer for group in groups}):
        own = [group for group in groups if group.layer == layer]
        modules = {group.name: live[family.stem(group.weights[0].name)] for group in own}
        moments = {name: reader.moments(layer, modules) for name, reader in inputs.items()}
        for group in own:
            yield group, {name: seen[group.name] for name, seen in moments.items()}


def energies_of_data(skills: Sequence[CheckedSkill], moments: Iterator[tuple[InputGroup, Moments]]) -> Measured:
    """E_t |dW_s x|^2 of every skill s over the data of every t that moments are of, weight by weight."""
    measured: Measured = {}
    for group, seen in moments:
        for skill in skills:
            for weight in (weight.name for weight in group.weights if weight.name in skill.weights):
                output, reads = skill.factors(weight)
                for name, moment in seen.items():
                    energy = output_energy(output, reads.T @ moment.to(reads) @ reads)
                    measured.setdefault((skill.name, name), {})[weight] = energy
    return measured
