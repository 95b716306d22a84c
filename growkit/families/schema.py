"""What a model family is, as data. Knows names, axes and config keys; ignorant of values, maps and files.

A family is a table from tensor name to axes, and a handful of facts that cannot be read off names: which norm, whether
positions are rotary, what a tied head is tied to. Adding a family means adding a table; if it seems to need a new
function, the notation is missing something.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from typing import Any

from growkit.errors import CheckpointError
from growkit.maps.notation import Dimension, parse

RMS, LAYER = "RMSNorm", "LayerNorm"
_NUMBER = re.compile(r"(?:(?<=\.)|^)\d+(?=\.)")
_SPARSE, _DENSE = {"expert", "shared_ffn", "gate"}, {"dense_ffn"}  # axes that only one kind of layer has


@dataclass(frozen=True)
class Family:
    """One row of growkit's knowledge of the world.

    model_type: as config.json says it. sizes: axis -> config key (several, where a config says it twice). tensors: name template -> axes (see growkit.maps.notation);
    "{layer}" stands for a layer number, "{expert}" for an expert's. prefixes: what task models put before the names of their base model.
    norm: RMSNorm or LayerNorm. post_norm: the stream is what a norm puts out (BERT), so a norm cannot hide a filler.
    embedding, heads: templates of the token embedding and of the output head that may be tied to it; tied: whether it is
    when the config is silent. rotary, rotary_fraction: rotary positions, on which part of a head by default.
    own_head_dim: head_dim is a config key of its own. hidden_by_heads: transformers insists on hidden % heads == 0.
    head_norm: an RMSNorm runs over q and k. gain_offset: gains are stored minus this (Gemma: 1 + w).
    embedding_scaled: the model multiplies its embeddings by sqrt(hidden). score_keys: config keys that, at the value
    given or at any when None, fix the softmax scale instead of head_dim. position_offset: rows that the position table has
    beyond the config's number. buffers: stored tensors that transformers
    recomputes. refused: config key -> (the only value understood, why). defaults: config values where the key is absent.
    branch_norms: norms over what a block adds to the stream (sandwich norms), so that their gain can silence it.
    layer_cycle: the layer_types of a config that lists none, again and again; full_layers: or the config key that says how
    many first layers see everything where `use_sliding_window` is on. by_number: config keys that make a layer compute by its
    number, so that it cannot be copied elsewhere.
    switches: config key that must be true where a template is stored, for files without a config.
    architectures: (tensor name that gives a task model away, its class), first match wins; task_tensors: tables that
    hold for one kind of class only.
    top_k: in a mixture of experts, the config key that says how many experts a token takes. sparse_step, dense_layers: the
    keys that say which layers have experts: every so many-th, but not these; without them all have. fused: what a live
    model calls a tensor -> the stored tensors it holds, those of all experts stacked.
    """

    model_type: str
    sizes: Mapping[str, str]
    tensors: Mapping[str, str]
    norm: str
    embedding: str
    heads: tuple[str, ...]
    tied: bool
    prefixes: tuple[str, ...]
    architectures: tuple[tuple[str, str], ...]
    switches: Mapping[str, str] = field(default_factory=dict)
    post_norm: bool = False
    rotary: bool = False
    rotary_fraction: float = 1.0
    own_head_dim: bool = False
    hidden_by_heads: bool = True
    head_norm: bool = False
    gain_offset: float = 0.0
    embedding_scaled: bool = False
    score_keys: Mapping[str, Any] = field(default_factory=dict)
    position_offset: int = 0
    buffers: tuple[str, ...] = ()
    refused: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    task_tensors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    branch_norms: tuple[str, ...] = ()
    layer_cycle: tuple[str, ...] = ()
    full_layers: str = ""
    by_number: tuple[str, ...] = ()
    top_k: str = ""
    sparse_step: str = ""
    dense_layers: str = ""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def axes_of(self, name: str, architecture: str = "") -> tuple[Dimension, ...]:
        """The dimensions of a stored tensor. Raises CheckpointError for a name the family does not have."""
        stem = self.stem(name)
        for kind, table in self.task_tensors.items():
            if kind in architecture and stem in table:
                return parse(table[stem])
        pattern = self.tensors.get(self.template(name))
        if pattern is None:
            raise CheckpointError(
                f"tensor {name!r} is not one of the {self.model_type} family's: growkit does not know its axes and will"
                " not guess; remove it from the checkpoint or check model_type in config.json"
            )
        return parse(pattern)

    def knows(self, name: str) -> bool:
        """Whether the name belongs to the family, as a parameter or as a buffer."""
        return self.is_buffer(name) or self.template(name) in self.tensors

    def is_buffer(self, name: str) -> bool:
        """Whether transformers recomputes this tensor, so that it is left out of what growkit writes."""
        return self.template(name) in self.buffers

    def stem(self, name: str) -> str:
        """The name without the prefix a task model gives its base model."""
        return _stem_and_template(name, self.prefixes)[0]

    @property
    def is_moe(self) -> bool:
        """Whether its feed-forward layers are mixtures of experts."""
        return "expert" in self.sizes

    def number(self, config: Mapping[str, Any], key: str) -> int:
        """A positive whole number that a config states under any of these keys, or the family's default. Raises CheckpointError where it is none."""
        stated = [config[name] for name in key.split() if config.get(name) is not None]
        value = stated[0] if stated else self.defaults.get(key.split()[0])
        if type(value) is not int or value < 1:
            raise CheckpointError(
                f"config.json should give {key.split()[0]!r} as a positive whole number, not {value!r}"
            )
        return value

    def is_sparse(self, config: Mapping[str, Any], layer: int) -> bool:
        """Whether a layer, counted from 0, has experts. Raises CheckpointError for a config that does not say it soundly."""
        if not self.is_moe or not self.sparse_step:
            return self.is_moe
        dense = config.get(self.dense_layers) or []
        if not isinstance(dense, list):
            raise CheckpointError(f"config.json should list layers under {self.dense_layers!r}, not {dense!r}")
        return layer not in dense and (layer + 1) % self.number(config, self.sparse_step) == 0

    def lacking(self, names: Iterable[str], layers: int, config: Mapping[str, Any] | None = None) -> list[str]:
        """Stems of the weights that a base model of so many layers needs and that are not among the names.

        config: which layers have experts, and how many; without it, all have, and one is enough.
        """
        there = {self.stem(name).replace(".gamma", ".weight") for name in names}
        weights = [name for name in self.tensors if name.endswith(".weight")]
        in_layers = [name for name in weights if "{layer}" in name]
        experts = self.number(config, self.sizes["expert"]) if self.is_moe and config is not None else 1
        needed = []
        for layer in range(layers):
            other = _DENSE if self.is_sparse(config or {}, layer) else _SPARSE
            for name in in_layers:
                if not self._words(name) & other:
                    numbers = range(experts) if "{expert}" in name else (0,)
                    at = name.replace("{layer}", str(layer))
                    needed += [at.replace("{expert}", str(number)) for number in numbers]
        needed += [self.embedding, *(name for name in weights if self.tensors[name] == "~/hidden")]
        return [name for name in needed if name not in there]

    def _words(self, template: str) -> set[str]:
        """The axes of a tensor, those in its name included."""
        axes = {axis for dimension in parse(self.tensors[template]) for axis in dimension.axes}
        return axes | ({"expert"} if "{expert}" in template else set())

    def of_each_expert(self, name: str) -> bool:
        """Whether each expert has such a tensor of its own, so that a token passes only those of the experts it takes."""
        return "{expert}" in self.template(name)

    def layer_of(self, name: str) -> int | None:
        """The layer number in a tensor's name, or None."""
        match = _NUMBER.search(self.stem(name))
        return int(match[0]) if match else None

    def in_layer(self, name: str, layer: int) -> str:
        """The same tensor's name in another layer."""
        stem = self.stem(name)
        return name[: len(name) - len(stem)] + _NUMBER.sub(str(layer), stem, count=1)

    def architecture(self, names: list[str]) -> str:
        """The transformers class that these tensors are a checkpoint of, for files without a config."""
        stems = {self.stem(name) for name in names}
        prefixed = any(name.startswith(prefix) for name in names for prefix in self.prefixes)
        for stem, architecture in self.architectures:
            if stem in stems or (stem == "" and not prefixed) or (stem == "*"):
                return architecture
        raise AssertionError("a family's list of architectures ends with '*'")

    def template(self, name: str) -> str:
        """A stored name as the tables have it: without prefix, "{layer}" and "{expert}" for its numbers."""
        return _stem_and_template(name, self.prefixes)[1]


@lru_cache(maxsize=1 << 16)
def _stem_and_template(name: str, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Both are asked for a dozen times for each tensor, and a large mixture has thousands of tensors."""
    stem = next((name[len(p) :] for p in prefixes if name.startswith(p)), name)
    template = _NUMBER.sub("{expert}", _NUMBER.sub("{layer}", stem, count=1), count=1)
    return stem, intern(template)


def has_language_head(architecture: str) -> bool:
    """Whether a transformers class puts a language-model head on its base model: only then can a head be tied."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForPreTraining"))


def linear(name: str, out: str, into: str) -> dict[str, str]:
    """An nn.Linear: weight stored (out, in), and its bias."""
    return {f"{name}.weight": f"{out} /{into}", f"{name}.bias": out}


def conv1d(name: str, out: str, into: str) -> dict[str, str]:
    """GPT-2's Conv1D: weight stored (in, out), and its bias."""
    return {f"{name}.weight": f"/{into} {out}", f"{name}.bias": out}


def norm(name: str, axis: str = "hidden", before_head: bool = False) -> dict[str, str]:
    """A norm's gain and bias over an axis, under today's and BERT's first names (gamma, beta)."""
    axis = f"/{axis}" if before_head else axis
    gain, shift = f"~{axis}", f"+{axis}"
    return {f"{name}.weight": gain, f"{name}.gamma": gain, f"{name}.bias": shift, f"{name}.beta": shift}


def task_heads() -> dict[str, str]:
    """The heads that transformers puts on any decoder: sequence and token classification, question answering."""
    return {
        **linear("score", "label", "hidden"),
        **linear("classifier", "label", "hidden"),
        **linear("qa_outputs", "label", "hidden"),
    }
