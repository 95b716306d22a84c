"""What skills put out on each other's data, from the sketches that they carry: no data and no model needed. Knows
skills of one panel; ignorant of what follows.
"""

import math
from collections.abc import Sequence

from growkit.skills.checking.checked_skills import PanelSkill
from growkit.skills.checking.rho import Energies, output_energy

Measured = dict[tuple[str, str], Energies]  # by (skill, whose data)


def energies_of_sketches(skills: Sequence[PanelSkill]) -> Measured:
    """E_t |dW_s x|^2 of every skill s over the data of every skill t, weight by weight, in float64; exact, since the
    input directions of all lie in the panel's. Infinite for what s changes on an input that t has no sketch of."""
    names = [skill.name for skill in skills]
    measured: Measured = {(s.name, t.name): {} for s in skills for t in skills}
    groups = {group: None for skill in skills for group in skill.weights.values()}
    for group in groups:
        sketches = {t.name: t.sketch(group) for t in skills if group in t.weights.values()}
        for skill in (skill for skill in skills if group in skill.weights.values()):
            coordinates = skill.coordinates(group)
            moments = {t: coordinates.T @ sketch @ coordinates for t, sketch in sketches.items()}
            for weight in (weight for weight, own in skill.weights.items() if own == group):
                output = skill.output(weight)
                unknown = math.inf if output.any() else 0.0
                for t in names:
                    energy = output_energy(output, moments[t]) if t in moments else unknown
                    measured[skill.name, t][weight] = energy
    return measured
