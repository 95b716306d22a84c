"""A skill's gate, found where the skill is learned: from its data, through the base. Knows texts and live models;
ignorant of thresholds, which only a bundle has.
"""

from typing import Any

from growkit.skills.gates.gate_texts import GateTexts, positions_of
from growkit.skills.gates.hidden_states import middle_layer, pooled_states
from growkit.skills.gates.own_texts import OwnTexts, own_texts


def gate_of_texts(model: Any, texts: GateTexts, *, layer: int | None = None) -> OwnTexts:
    """The gate of a skill whose own texts are these, each as far as the model has positions; own_file.write_gate puts
    it into the skill's folder.

    model: the base alone, or with a skill on it that changes nothing yet. layer: whose states the gate reads, counted
    from 1; None: the middle one. Raises RequestError for fewer than four texts.
    """
    read = middle_layer(model) if layer is None else layer
    sequences = [ids[: positions_of(model.config.to_dict())] for ids in texts.sequences]
    states = pooled_states(model, sequences, read)
    return own_texts(states, [len(ids) for ids in sequences], read)
