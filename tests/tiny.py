"""Tiny stock models of every family, made on the fly, with every weight, bias and gain far from its default."""

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from growkit.families import FAMILIES, naming
from growkit.families.small_sizes import small_settings
from growkit.families.stock_config import hushed
from growkit.family_check import small_models as models
from growkit.family_check.in_float64 import float32_parts_in_double as float32_parts_in_double
from growkit.family_check.small_models import shaken as shake  # noqa: F401
from growkit.family_check.small_models import small_model, stock_classes

# the families that every test of growth goes through; check-family does it for all
EVERY = (
    "bert", "roberta", "distilbert", "gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2",
    "olmo2", "phi", "mixtral", "qwen2_moe", "qwen3_moe",
)  # fmt: skip


def _settings(family):
    """The settings of a tiny model, with a padding token that it has."""
    kind, settings = CONFIG_MAPPING[family.model_type], small_settings(family)
    with hushed():
        padding = getattr(kind(**settings), "pad_token_id", None) or 0
    return kind, settings | ({"pad_token_id": 0} if padding >= settings[family.keys("vocab")[0]] else {})


# language models; of others, such as those that read images too, test_images.py and check-family speak
ALL = {name: _settings(family) for name, family in FAMILIES.items() if family.heads and not family.beside}
CONFIGS = {name: ALL[name] for name in EVERY}
# an encoder and a decoder that reads it: test_encoder_decoders.py
SEQUENCES = tuple(n for n in ALL if stock_classes(FAMILIES[n])[0].__name__.endswith(naming.SEQUENCES))
ENCODERS = tuple(name for name in ALL if not FAMILIES[name].causal and name not in SEQUENCES)
MORE = {name: ALL[name] for name in ENCODERS if name not in EVERY}
SPARSE = {name: row for name, row in ALL.items() if name not in EVERY and FAMILIES[name].is_moe}
MIXTURES = tuple(name for name in EVERY if FAMILIES[name].is_moe)
DENSE = tuple(name for name in EVERY if name not in MIXTURES)
STEMS = {name: kind.__name__.removesuffix("Config") for name, (kind, _) in ALL.items()}


def language_model(family: str) -> str:
    """The class with a language-model head."""
    return stock_classes(FAMILIES[family])[0].__name__


for _family in ALL:
    language_model(_family)  # imports its code now, so that it can be patched below


def make(family: str, architecture: str | None = None, seed: int = 0, dtype=torch.float64, **changes):
    """A shaken tiny model in eval mode; `changes` go into its config."""
    kind = None if architecture is None else getattr(transformers, architecture)
    return small_model(FAMILIES[family], kind, seed, dtype, **changes)


def one_by_one(model):
    """Let a mixture compute its experts one after another: stock code has no other way in float64."""
    return models.one_by_one(FAMILIES[model.config.model_type], model)


def stored(model, tensors=None) -> dict[str, torch.Tensor]:
    """A model's tensors, or others by the names of its parameters, under the names a file has: each expert's its
    own."""
    return models.stored(FAMILIES[model.config.model_type], model, tensors)


def rebuild(model, state, config, dtype=torch.float64):
    """The grown model of the same class, with every key matched."""
    return models.rebuilt(FAMILIES[model.config.model_type], model, state, config, dtype)


def tokens(seed: int = 0, batch: int = 3, length: int = 11, vocabulary: int = 61) -> torch.Tensor:
    """Random token ids, away from the special ones at the start of the vocabulary."""
    return torch.randint(3, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the scale of the reference."""
    return ((a - b).abs().max() / a.abs().max()).item()
