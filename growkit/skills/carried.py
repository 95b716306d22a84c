"""What is on a model, grown by the maps of the model's own growth: low-rank changes of linear weights, and skills.
Knows plans and factors; ignorant of files.

A weight W' grows out of W by W'[i, j] = write[i] * read[j] * W[s(i), s(j)], so G V^T becomes G' V'^T with G'[i] =
write[i] * G[s(i)] and V'[j] = read[j] * V[s(j)]; means over an axis stay means, and what nothing reads is 0. Nothing is
split by noise: where copies part, their sums do not. Then V'^T x' is V^T x for every text, so that coordinates and
sketches of a skill are as they were.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch

from growkit.errors import RequestError
from growkit.growth.describe import maps_digest
from growkit.growth.plan import Plan
from growkit.maps.axis import GATHER, MEAN
from growkit.operators.rule import Rule, Selection
from growkit.skills.skill_file import SkillFacts, StoredSkill


@dataclass(frozen=True)
class CarriedWeight:
    """A weight of a grown checkpoint and the one it came from, by name; sides: (out, in) of the grown one."""

    name: str
    origin: str
    rule: Rule

    @property
    def sides(self) -> tuple[int, int]:
        return self.rule.rows.new, self.rule.columns.new

    def written(self, output: torch.Tensor) -> torch.Tensor:
        """G' (out', m) of G (out, m)."""
        return _grown(self.rule.rows, output)

    def read(self, read: torch.Tensor) -> torch.Tensor:
        """V' (in', m) of V (in, m)."""
        return _grown(self.rule.columns, read)


def carried_weights(plan: Plan, changed: Collection[str]) -> list[CarriedWeight]:
    """The weights of the result that come from some of the source, as they lie. Raises RequestError where one is made
    of two layers."""
    found = []
    for tensor in plan.tensors:
        if not any(part.name in changed for part in tensor.parts):
            continue
        if len(tensor.parts) > 1:
            raise RequestError(
                f"{tensor.name!r} was grown out of two layers (by aki or average), and a change of rank m would have rank"
                " 2m; grow the base by --method fpi, or plug the skill in and grow that"
            )
        found.append(CarriedWeight(tensor.name, tensor.parts[0].name, tensor.parts[0].rule))
    return found


def carried_skill(
    skill: StoredSkill, plan: Plan, groups: Mapping[str, str], base: Mapping[str, object]
) -> tuple[SkillFacts, dict[str, torch.Tensor]]:
    """(what skill.json says of it, its tensors, float64) of a skill on the grown model.

    groups: of each grown weight, the weights that read its input. base: as skill.json has it, of the grown model. Its
    panel is the skill's own, grown by the same maps, which no file holds and skills of one panel share.
    """
    facts, tensors, weights = skill.facts, dict[str, torch.Tensor](), dict[str, str]()
    for weight in carried_weights(plan, facts.weights):
        group, origin = groups[weight.name], facts.weights[weight.origin]
        weights[weight.name] = group
        for part in ("Q", "R"):
            tensors[f"{weight.name}.{part}"] = skill.tensor(f"{weight.origin}.{part}").double()
        for part in ("U_s", "B") if facts.adapter else ("U_s",):
            tensors[f"{weight.name}.{part}"] = weight.written(skill.tensor(f"{weight.origin}.{part}").double())
        if f"{group}.V_s" not in tensors:
            for part in ("P", "K"):
                tensors[f"{group}.{part}"] = skill.tensor(f"{origin}.{part}").double()
            tensors[f"{group}.V_s"] = weight.read(skill.tensor(f"{origin}.V_s").double())
    panel = sha256(f"{facts.panel}\n{maps_digest(plan)}".encode()).hexdigest()
    return replace(facts, base=base, panel=panel, weights=weights), tensors


def factors_of(
    facts: SkillFacts, tensors: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(weight, A (m, in), B (out, m)) of each weight, with whose product a skill changes it."""
    for weight, group in facts.weights.items():
        output = tensors[f"{weight}.U_s"] @ tensors[f"{weight}.R"] + tensors.get(f"{weight}.B", 0.0)
        yield weight, tensors[f"{group}.V_s"].T, output


def _grown(side: Selection, matrix: torch.Tensor) -> torch.Tensor:
    """(new, m) of (old, m): copies times their amplitudes, means of all, and 0 where nothing depends on it."""
    amplitude = torch.from_numpy(side.amplitude).to(matrix.dtype)[:, None]
    means = torch.from_numpy(side.mode == MEAN)[:, None]
    kept = torch.from_numpy(np.isin(side.mode, (GATHER, MEAN)))[:, None]
    values = torch.where(means, matrix.mean(0), matrix[torch.from_numpy(side.index)])
    return torch.where(kept, values * amplitude, torch.zeros((), dtype=matrix.dtype))
