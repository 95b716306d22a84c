"""The families growkit knows, by model_type. They know names and axes; ignorant of values, maps and files."""

from collections.abc import Mapping
from typing import Any

from growkit.errors import CheckpointError
from growkit.families import (
    albert,
    bert,
    deberta,
    deepseek,
    electra,
    eurobert,
    fused,
    glm,
    gpt,
    gpt_oss,
    gptj,
    granitemoe,
    layer_normed,
    llama,
    llama_kin,
    modernbert,
    moe,
    mpnet,
    nomic_bert,
    olmo,
    roberta,
    t5,
)
from growkit.families.schema import Family

_FILES = (
    bert,
    gpt,
    llama,
    fused,
    gptj,
    glm,
    moe,
    granitemoe,
    gpt_oss,
    deepseek,
    roberta,
    electra,
    mpnet,
    eurobert,
    albert,
    deberta,
    nomic_bert,
    llama_kin,
    layer_normed,
    olmo,
    modernbert,
    t5,
)
FAMILIES: dict[str, Family] = {f.model_type: f for file in _FILES for f in file.FAMILIES}


def family_named(model_type: object) -> Family:
    """The family of a config's model_type. Raises CheckpointError for one growkit does not have a table for."""
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise CheckpointError(
            f"model_type {model_type!r} is not a family growkit knows; it knows {', '.join(sorted(FAMILIES))}"
        )
    return family


def vocabulary_size(config: Mapping[str, Any]) -> int:
    """How many rows the token embedding of a config's model has. Raises CheckpointError where it does not say so."""
    family = family_named(config.get("model_type"))
    return family.number(config, family.sizes["vocab"])
