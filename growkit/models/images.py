"""Images of random pixels, for models that read images. Knows what a config says of their size; ignorant of models."""

from collections.abc import Mapping
from typing import Any

import torch

from growkit.errors import CheckpointError
from growkit.families import family_named

SIDE, CHANNELS = 4096, 64  # the most of an image


def image_shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width) of the images that a config's model reads. Raises CheckpointError where it does not say
    so soundly.
    """
    family = family_named(config.get("model_type"))
    size, channels = (family.value(config, key) for key in ("image_size", "num_channels"))
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
