"""What a model is called with: tokens, images or sounds, the last two of random numbers. Knows what a config says of
their sizes; ignorant of what comes out.
"""

from collections.abc import Mapping
from typing import Any

import torch

from growkit.errors import CheckpointError
from growkit.families import family_named
from growkit.families.naming import ENCODERS
from growkit.families.text_part import BESIDE, TOWER, flattened
from growkit.operators.seeds import generator

SIDE, CHANNELS = 4096, 64  # the most of an image


def image_shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width) of the images that a config's model reads. Raises CheckpointError where it does not say
    so soundly.
    """
    family = family_named(config.get("model_type"))
    place = f"{BESIDE}.{TOWER}." if family.beside else ""
    size, channels = (family.value(config, f"{place}{key}") for key in ("image_size", "num_channels"))
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or any(type(side) is not int or not 1 <= side <= SIDE for side in sides):
        raise CheckpointError(
            f"config.json should give 'image_size' as one or two numbers from 1 to {SIDE}, not {size!r}"
        )
    if type(channels) is not int or not 1 <= channels <= CHANNELS:
        raise CheckpointError(f"config.json should give 'num_channels' as a number to {CHANNELS}, not {channels!r}")
    return channels, *sides


def random_images(config: Mapping[str, Any], count: int, draws: torch.Generator) -> torch.Tensor:
    """(count, channels, height, width) pixels, as processors scale them: of mean 0 and deviation 1. Raises
    CheckpointError.
    """
    return torch.randn((count, *image_shape(config)), generator=draws)


def sound_shape(config: Mapping[str, Any]) -> tuple[int, int]:
    """(numbers of a frame, frames) of the sounds that a config's model reads, two frames for each of its positions.
    Raises CheckpointError where it does not say so soundly.
    """
    family = family_named(config.get("model_type"))
    features, positions = (family.number(config, key) for key in family.frames)
    for key, size, most in zip(family.frames, (features, positions), (SIDE, SIDE * CHANNELS)):
        if size > most:
            raise CheckpointError(f"config.json should give {key!r} as a number to {most}, not {size}")
    return features, 2 * positions


def random_sound(config: Mapping[str, Any], draws: torch.Generator) -> torch.Tensor:
    """(1, numbers of a frame, frames) of about the scale that processors give. Raises CheckpointError."""
    return torch.randn((1, *sound_shape(config)), generator=draws)


def inputs_of(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a stock model that reads texts is called with for token ids (sequences, tokens) and which of them count.

    A model of two towers sees images that these tokens choose. A decoder reads the same tokens backwards; behind an
    encoder of sounds, it hears one that they choose.
    """
    config = flattened(model.config.to_dict())
    family, decodes = family_named(config.get("model_type")), not type(model).__name__.endswith(ENCODERS)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family.frames:
        sound = random_sound(config, generator(int(ids.sum()), "sound")).to(ids.device, model.dtype)
        inputs = {"input_features": sound.expand(len(ids), -1, -1)}
    if family.pairs:
        images = random_images(config, len(ids), generator(int(ids.sum()), "images"))
        inputs["pixel_values"] = images.to(ids.device, model.dtype)
    if getattr(model.config, "is_encoder_decoder", False) and decodes:
        inputs["decoder_input_ids"] = ids.flip(1)
    return inputs
