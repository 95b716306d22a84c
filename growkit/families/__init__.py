"""The families growkit knows, by model_type. They know names and axes; ignorant of values, maps and files."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from growkit.errors import CheckpointError
from growkit.families.not_grown import NOT_GROWN
from growkit.families.schema import Family

# a file of tables each
_TABLES = (
    "bert", "gpt", "llama", "fused", "gptj", "glm", "moe", "granitemoe", "gpt_oss", "deepseek", "moe_kin", "roberta",
    "electra", "ernie", "bert_kin", "mpnet", "eurobert", "albert", "deberta", "nomic_bert", "llama_kin", "layer_normed",
    "olmo", "gemma3", "exaone4", "cohere", "gpt_neo", "modernbert", "t5", "bart", "bart_kin", "whisper", "vit", "vit_kin",
    "clip", "siglip", "vision_language",
)  # fmt: skip
FAMILIES: dict[str, Family] = {
    family.model_type: family for name in _TABLES for family in import_module(f"{__name__}.{name}").FAMILIES
}


def family_named(model_type: object) -> Family:
    """The family of a config's model_type. Raises CheckpointError for one growkit does not have a table for."""
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None and isinstance(model_type, str) and model_type in NOT_GROWN:
        raise CheckpointError(f"growkit does not grow {model_type}: {NOT_GROWN[model_type]}")
    if family is None:
        raise CheckpointError(
            f"model_type {model_type!r} is not a family growkit knows; it knows {', '.join(sorted(FAMILIES))}"
        )
    return family


def vocabulary_size(config: Mapping[str, Any]) -> int:
    """How many rows the token embedding of a config's model has. Raises CheckpointError where it does not say so."""
    family = family_named(config.get("model_type"))
    if family.reads_pixels:
        raise CheckpointError(
            f"a {family.model_type} reads images, and has no vocabulary: growkit inspects, grows, merges and verifies it;"
            " what reads text is for language models"
        )
    return family.number(config, family.sizes["vocab"])
