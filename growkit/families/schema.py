"""What a model family is, as data. Knows names, axes and config keys; ignorant of values, maps and files.

A family is a table from tensor name to axes, and a handful of facts that cannot be read off names: which norm, whether
positions are rotary, what a tied head is tied to. Adding a family means adding a table; if it seems to need a new
function, the notation is missing something.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from growkit.errors import CheckpointError
from growkit.families.facts import AttentionWindows as AttentionWindows
from growkit.families.facts import ExpertKeys as ExpertKeys
from growkit.families.facts import Norms as Norms
from growkit.families.facts import Positions as Positions
from growkit.families.facts import Rotary as Rotary
from growkit.families.facts import Tower as Tower
from growkit.families.keys import Keys, key_names
from growkit.families.naming import TensorNames
from growkit.families.stock_config import stock_value
from growkit.maps.notation import WRITE, parse

RMS, LAYER = "RMSNorm", "LayerNorm"


@dataclass(frozen=True, kw_only=True)
class Family(TensorNames):
    """One row of growkit's knowledge of the world: the names of its tensors, and the facts that names do not tell."""

    sizes: Mapping[str, Keys]  # axis -> config key, or several
    norms: Norms
    tied: bool  # whether the output head is the embedding when the config is silent
    causal: bool = (
        True  # the base model predicts the next token; else it fills in masked ones, unless a class is causal
    )
    # whether positions that begin anew keep texts in one row apart; else it makes an attention mask of its own
    packs: bool = True
    rotary: Rotary | None = None  # None: positions are absolute
    positions: Positions = field(default_factory=Positions)
    own_head_dim: bool = False  # head_dim is a config key of its own
    hidden_by_heads: bool = True  # transformers insists that hidden is a multiple of heads
    # whether embeddings of a width of their own are projected even where it is the hidden one; else they are hidden
    projected: bool = False
    # config key -> the value at which the head is the embedding whatever tie_word_embeddings says
    always_tied: Mapping[str, Any] = field(default_factory=dict)
    # config key of how many times the layers are passed in turn, where that is more often than there are layers
    passes: str = ""
    # whether the model multiplies its embeddings by sqrt(hidden), or the config key that says so
    embedding_scaled: bool | str = False
    # config key -> value: where a config has it, kv heads are a size of their own; else each head has one
    grouped_where: Mapping[str, Any] = field(default_factory=dict)
    # config key -> value: where a config has it, and kv heads are no size of their own, all heads share one
    one_kv_head: Mapping[str, Any] = field(default_factory=dict)
    # template -> alternatives, each config key -> values: only where one of them holds do layers have this tensor
    stored_where: Mapping[str, tuple[Mapping[str, tuple[Any, ...]], ...]] = field(default_factory=dict)
    head_scaled: str = ""  # config key that says whether the head reads the stream divided by sqrt(hidden)
    scaled_scores: bool = True  # attention divides them by sqrt(head_dim), if nothing else is said
    # config key -> the value, None for any, at which it fixes the softmax scale instead of head_dim
    score_keys: Mapping[str, Any] = field(default_factory=dict)
    windows: AttentionWindows = field(default_factory=AttentionWindows)
    beside: Tower | None = None  # of a text model inside a larger one
    by_number: tuple[
        str, ...
    ] = ()  # config keys that make a layer compute by its number, so that it cannot stand elsewhere
    experts: ExpertKeys = field(default_factory=ExpertKeys)
    # what transformers' config class fills in where a key is absent, for those that growth asks of every model; None:
    # what follows from other sizes. Of any other key the class is asked
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # config key, or "" for what is never off -> (values at which it is off, axes that it keeps from growing, why)
    forbids: Mapping[str, tuple[tuple[Any, ...], tuple[str, ...], str]] = field(default_factory=dict)
    # the same, of axes that grow by whole multiples
    only_multiples: Mapping[str, tuple[tuple[Any, ...], tuple[str, ...], str]] = field(default_factory=dict)
    refused: Mapping[str, tuple[Any, str]] = field(default_factory=dict)  # config key -> (only value understood, why)
    # of the small models that check-family makes: settings beside sizes, and each other way to set it that computes
    # otherwise
    small: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ()

    # config keys of how many numbers a frame of sound has, and how many pairs of frames its encoder reads; else texts
    frames: tuple[str, ...] = ()
    pools: str = "pooled"  # the axis of what its base model pools: what a layer of its own writes, or hidden
    pinned: tuple[str, ...] = ()  # config keys that keep their value though the class would take it from hidden
    # config key of how many times hidden the feed-forward width is, where no key states that width; and the key that is
    # true where it has a gate, and two thirds of that width, rounded up to a multiple of 8
    ffn_ratio: str = ""
    ffn_gated: str = ""

    @property
    def reads_pixels(self) -> bool:
        """Whether its models read images, and have no vocabulary."""
        return "vocab" not in self.sizes

    @property
    def pairs(self) -> bool:
        """Whether its models compare texts with images, and are called with both."""
        return self.beside is not None and not self.beside.tokens

    @property
    def output_axes(self) -> dict[str, str]:
        """Name of an output of a base model -> the axis that its last dimension is."""
        return {"last_hidden_state": "hidden", "pooler_output": self.pools, "image_hidden_states": "hidden"}

    @property
    def is_moe(self) -> bool:
        """Whether its feed-forward layers are mixtures of experts."""
        return "expert" in self.sizes

    def has_axes(self, names: Iterable[str], mark: str) -> bool:
        """Whether the axes of any of these tensors have a mark or a word in them: "normed" where a norm writes the
        stream before the first layer, "~/" where a norm with a gain stands before the head, "~/head_" where that norm
        is over what a layer of the head's own writes.
        """
        return any(mark in self.tensors.get(self.template(name), "") for name in names)

    def of_each_expert(self, name: str) -> bool:
        """Whether each expert has such a tensor of its own: then a token passes only those of the experts it takes."""
        return self.is_moe and super().of_each_expert(name)

    @cached_property
    def head_parts(self) -> int:
        """In how many equal parts its tensors hold the heads."""
        dealt = (dimension.dealt for axes in self.tensors.values() for dimension in parse(axes))
        return max((int(parts) for parts in dealt if parts.isdigit()), default=1)

    def keys(self, axis: str) -> tuple[str, ...]:
        """The config keys that a size is written under; none for an axis whose size no config of the family states."""
        return key_names(self.sizes[axis]) if axis in self.sizes else ()

    @property
    def size_keys(self) -> frozenset[str]:
        """All config keys of sizes; positions left out, which are a property of the text that was seen."""
        return frozenset(key for axis in self.sizes if axis != "position" for key in self.keys(axis))

    def value(self, config: Mapping[str, Any], key: str) -> Any:
        """What a config says under a key, or under "a.b" for b inside its a; where it has none, what transformers'
        config class says for it.

        Raises CheckpointError where the class must be asked and does not take the config.
        """
        place, _, inner = key.partition(".")
        if inner and isinstance(config.get(place), dict):
            return (
                self.value(config[place], inner) if "." in inner else config[place].get(inner, self.defaults.get(key))
            )
        if key in config:
            return config[key]
        return self.defaults[key] if key in self.defaults else stock_value(self.model_type, config, key)

    def number(self, config: Mapping[str, Any], keys: Keys) -> int:
        """A positive whole number that a config states under any of these keys, or its class.

        Raises CheckpointError where it is none.
        """
        names = key_names(keys)
        stated = [config[name] for name in names if config.get(name) is not None]
        value = stated[0] if stated else self.value({k: v for k, v in config.items() if k not in names}, names[0])
        if type(value) is not int or value < 1:
            raise CheckpointError(f"config.json should give {names[0]!r} as a positive whole number, not {value!r}")
        return value

    def positions_stated(self, config: Mapping[str, Any]) -> Any:
        """How many positions a config states; None where no config of the family does."""
        return next((self.value(config, key) for key in self.keys("position")[:1]), None)

    def longest(self, config: Mapping[str, Any]) -> int | None:
        """How many tokens the longest sequence has; None where the config does not say.

        RoBERTa counts positions from behind the padding token's id, so that many are never used.
        """
        stated = self.positions_stated(config)
        after = self.positions.counted_after
        if not after or not isinstance(stated, int):
            return stated
        return stated - ((self.value(config, after) or 0) if isinstance(after, str) else after) - 1

    def ffn_of(self, config: Mapping[str, Any], hidden: int) -> int:
        """The feed-forward width that follows from hidden. Raises CheckpointError for a ratio that is no number."""
        ratio = self.value(config, self.ffn_ratio) if self.ffn_ratio else 4
        if type(ratio) not in (int, float) or not 0 < ratio <= 1024:
            raise CheckpointError(
                f"config.json should give {self.ffn_ratio!r} as a number from 0 to 1024, not {ratio!r}"
            )
        width = int(hidden * ratio)
        gated = self.ffn_gated and self.value(config, self.ffn_gated)
        return (int(width * 2 / 3) + 7) // 8 * 8 if gated else width

    def fixed_layers(self, config: Mapping[str, Any]) -> int:
        """Behind how many first layers a tower adds to the stream. Raises CheckpointError for a config that does not
        list it soundly.
        """
        if self.beside is None or not self.beside.added:
            return 0
        added = self.value(config, self.beside.added)
        if not isinstance(added, list | tuple):
            raise CheckpointError(
                f"config.json should list layers under {self.beside.added.removeprefix('beside.')!r}, not {added!r}"
            )
        return len(added)

    def forbidden(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The axes that cannot grow in a config's model -> a sentence that says so, and why."""
        stated = {key: self.value(config, key) if key else None for key in self.forbids}
        return {
            axis: f"{axis} cannot grow{f' with {key} {stated[key]!r}' if key else ''}: {why}"
            for key, (off, axes, why) in self.forbids.items()
            if not key or stated[key] not in off
            for axis in axes
        }

    def scales_embedding(self, config: Mapping[str, Any]) -> bool:
        """Whether a config's model multiplies its embeddings by sqrt(hidden)."""
        key = self.embedding_scaled
        return bool(self.value(config, key)) if isinstance(key, str) else key

    def groups_heads(self, config: Mapping[str, Any]) -> bool:
        """Whether kv heads of a config's model are a size of their own."""
        where = self.grouped_where.items()
        return "kv_head" in self.sizes and all(self.value(config, key) == value for key, value in where)

    def shares_kv(self, config: Mapping[str, Any]) -> bool:
        """Whether all heads of a config's model share one kv head by design."""
        where = self.one_kv_head.items()
        return any(self.value(config, key) == value for key, value in where) and not self.groups_heads(config)

    def is_sparse(self, config: Mapping[str, Any], layer: int) -> bool:
        """Whether a layer, counted from 0, has experts. Raises CheckpointError for a config that does not say it
        soundly.
        """
        keys = self.experts
        if keys.kinds:
            kinds = self.value(config, keys.kinds)
            if not isinstance(kinds, list) or layer >= len(kinds):
                raise CheckpointError(f"config.json should list layers under {keys.kinds!r}, not {kinds!r}")
            return bool(kinds[layer] == "sparse")
        if keys.first_dense:
            first = self.value(config, keys.first_dense)
            if type(first) is not int or first < 0:
                raise CheckpointError(f"config.json should give {keys.first_dense!r} as a whole number, not {first!r}")
            last = self.value(config, keys.last) if keys.last else -1
            if type(last) is not int:
                raise CheckpointError(f"config.json should give {keys.last!r} as a whole number, not {last!r}")
            return layer >= first and (last < 0 or layer <= last)
        if not self.is_moe or not keys.sparse_step:
            return self.is_moe
        dense = self.value(config, keys.dense_layers) or []
        if not isinstance(dense, list):
            raise CheckpointError(f"config.json should list layers under {keys.dense_layers!r}, not {dense!r}")
        return layer not in dense and (layer + 1) % self.number(config, keys.sparse_step) == 0

    def is_stored(self, template: str, config: Mapping[str, Any] | None) -> bool:
        """Whether a model of this config has a tensor; without a config, those that only some models have are none."""
        if config is not None and any(self.value(config, self.keys(axis)[0]) is None for axis in self._ranks(template)):
            return False  # DeepSeek's query without a low-rank latent
        alternatives = self.stored_where.get(template)
        if alternatives is None or config is None:
            return alternatives is None
        return any(all(self.value(config, k) in values for k, values in one.items()) for one in alternatives)

    def _ranks(self, template: str) -> set[str]:
        """Axes of a tensor whose size may be null in a config: then there is no such tensor."""
        return self.words(template) & {"q_rank"}

    def norms_heads(self, config: Mapping[str, Any]) -> bool:
        """Whether a norm runs over q and k in a config's model; in some families a setting says so."""
        stored = [name for name, axes in self.tensors.items() if "~" in axes and "query_dim" in axes]
        return self.norms.on_heads and all(self.is_stored(name, config) for name in stored)

    def holds_experts(self, name: str) -> bool:
        """Whether a tensor is of experts, one of them or all: then a token passes only the share that it takes."""
        first, *others = parse(self.tensors.get(self.template(name)) or "vocab")
        stacked = first.axes == ("expert",) and any(other.role == WRITE for other in others)
        return stacked or self.of_each_expert(name)

    def words(self, template: str) -> set[str]:
        """The axes of a tensor, those in its name included."""
        axes = {axis for dimension in parse(self.tensors[template]) for axis in dimension.axes}
        return axes | ({"expert"} if "{expert}" in template else set())
