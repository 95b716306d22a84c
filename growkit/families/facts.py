"""What a family says of its norms, positions, experts and towers, as data. Knows words; ignorant of tables and of
configs.
"""

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
    """What stands beside a text model in a larger one: a tower that makes images into what the text model reads, or one
    that meets it in a space that both share.
    """

    texts: tuple[str, ...]  # model_types that the text model may be of, the usual one first
    place: str = "language_model"  # what a live model calls it
    settings: Mapping[str, Any]  # of a small model, all but the text model's
    tokens: int = 0  # how many places of a text one of its images takes; 0: none, and it is called with both always
    inputs: Mapping[str, Any] = field(
        default_factory=dict
    )  # what it reads of two images: name -> the shape of random pixels, or a list of numbers
    marks: str = ""  # name of an input that is 1 where a token is an image's
    token: str = "image_token_id"  # config key of that token
    added: str = ""  # config key that lists what is added to the stream behind each of the first layers


@dataclass(frozen=True, kw_only=True)
class AttentionWindows:
    """Which layers see a sliding window only, where a config does not list layer_types."""

    layer_cycle: tuple[str, ...] = ()  # layer_types of the first layers, again and again
    full_layers: str = ""  # or the key of how many first layers see everything where use_sliding_window is on
    # or what the config class lists of each layer by a rule of its own, such as a number under sliding_window_pattern
    listed: tuple[str, ...] = ()
    runs: str = ""  # key under which the last of them is given as [[kinds, how often these are repeated], ...]


@dataclass(frozen=True, kw_only=True)
class ExpertKeys:
    """Where a mixture of experts says how tokens are routed, and how a live model holds its experts."""

    top_k: str = ""  # config key: how many experts a token takes
    sparse_step: str = ""  # config key: every how many-th layer has experts; "": all have
    dense_layers: str = ""  # config key: numbers of layers without experts all the same
    first_dense: str = ""  # or the key of how many first layers have none, as all others have
    last: str = ""  # and the key of the number of the last layer that has them; negative: the model's last
    kinds: str = ""  # or what the config lists of each layer, "sparse" where it has experts
    # how a token's scores become weights: a softmax over "all" experts, over those "taken", or a "sigmoid" of each
    gates: str = "all"
    # whether the weights of those taken are divided by their sum, or the config key that says so
    divided: bool | str = False
    scale: str = ""  # config key of what all weights are multiplied by
    groups: tuple[str, ...] = ()  # config keys: of how many groups of experts, and of how many of them a token takes
    grouped_where: Mapping[str, Any] = field(default_factory=dict)  # config key -> value at which it does
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # live name -> the templates it holds, stacked
