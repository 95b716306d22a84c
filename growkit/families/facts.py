"""What a family says of its norms and positions, as data. Knows words; ignorant of tables and of configs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Norms:
    """Which norms a model has, and over what."""

    kind: str  # RMS or LAYER of the schema
    after: bool = False  # the stream is what a norm puts out (BERT), so that a norm cannot hide a filler
    on_heads: bool = False  # an RMSNorm runs over q and k
    gain_offset: float = 0.0  # gains are stored less this (Gemma: 1 + w)
    branch: tuple[
        str, ...
    ] = ()  # templates of norms over what a block adds to the stream: gains of 0 silence the block


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary positions."""

    fraction: float = 1.0  # the part of a head that turns, where the config is silent
    base: float = 10000.0  # of the frequencies, where the config is silent
    kind: str = "default"  # the rope type, where the config is silent
    # what the family's config calls that part and the base when it has them outside a dictionary of rotary settings
    fraction_key: str = "partial_rotary_factor"
    base_key: str = "rope_theta"
    pairs: bool = False  # slots 2j and 2j + 1 turn together; else slots j and j + half of those that turn
    size_key: str = ""  # what the config calls the number of slots that turn, where it states no part
    # type of layers -> what the base of their frequencies is called outside a dictionary, where each type has its own
    by_type: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Learned positions, where they are not counted from 0 or not stored as the config counts them."""

    extra_rows: int = 0  # rows that the table has beyond the config's number
    # config key of a token id, or a number: the first position is the one behind it
    counted_after: str | int = ""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """What stands beside a text model in a larger one: a tower that makes images into what the text model reads."""

    texts: tuple[str, ...]  # model_types that the text model may be of, the usual one first
    place: str = "language_model"  # what a live model calls it
    settings: Mapping[str, Any]  # of a small model, all but the text model's
    tokens: int  # how many places of a text one of its images takes
    inputs: Mapping[str, Any]  # what it reads of two images: name -> the shape of random pixels, or a list of numbers
    marks: str = ""  # name of an input that is 1 where a token is an image's
    token: str = "image_token_id"  # config key of that token
    added: str = ""  # config key that lists what is added to the stream behind each of the first layers
