"""What a family's tensors are called, and the axes of each. Knows templates of names; ignorant of sizes and of values.

A template is a stored name without the prefix that a task model gives its base model, with "{layer}" for a layer's
number and "{expert}" for an expert's; "*" stands for anything, in names that are no layer's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from itertools import takewhile
from sys import intern

from growkit.errors import CheckpointError
from growkit.maps.notation import Dimension, parse

_NUMBER = re.compile(r"(?:(?<=\.)|^)\d+(?=\.)")
SEQUENCES = ("ForConditionalGeneration", "MTModel")  # classes whose decoder reads what an encoder made of another text
ENCODERS = (
    "EncoderModel",
    "ForTokenClassification",
    "ForAudioClassification",
)  # of such families, classes that have the encoder alone
_FIRST_WORDS = {"gamma": "weight", "beta": "bias"}  # BERT's first files, of norms
_FIRST_WORD = re.compile(r"(?<=LayerNorm\.)(?:gamma|beta)(?=\.|$)")


def name_of_today(name: str) -> str:
    """What stock models call a tensor now that files have had under another name; the name itself for all others."""
    return _FIRST_WORD.sub(lambda match: _FIRST_WORDS[match[0]], name)


@lru_cache(maxsize=1 << 16)
def _stem_and_templates(name: str, prefixes: tuple[str, ...]) -> tuple[str, str, str]:
    """They are asked for a dozen times for each tensor, and a large mixture has thousands of tensors."""
    stem = next((name[len(p) :] for p in prefixes if name.startswith(p)), name)
    layered = _NUMBER.sub("{layer}", stem, count=1)
    return stem, intern(layered), intern(_NUMBER.sub("{expert}", layered, count=1))


@lru_cache(maxsize=1 << 16)
def _among(stem: str, templates: tuple[str, ...]) -> str:
    """The first of several templates with "*" that a stem fits; "" for none."""
    return next((template for template in templates if fnmatchcase(stem, template)), "")


@dataclass(frozen=True, kw_only=True)
class TensorNames:
    """The names of a family's tensors, as its table has them and as files do."""

    model_type: str  # as config.json says it
    # template -> axes (see growkit.maps.notation): what feeds the layers, the layers, what reads what they made
    tensors: Mapping[str, str]
    task_tensors: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # part of a class's name -> its own table
    buffers: tuple[str, ...] = ()  # templates of stored tensors that transformers recomputes
    prefixes: tuple[str, ...]  # what task models put before the names of their base model
    architectures: tuple[tuple[str, str], ...]  # (template that gives a class away, the class), first match wins
    embedding: str  # template of the token embedding
    heads: tuple[str, ...]  # templates of the output head that may be tied to it, one for each name it has
    # stem of what some files store a copy of -> the stem of what it is always a copy of
    copies: Mapping[str, str] = field(default_factory=dict)
    # template that some files have -> the templates of what it holds, one below the other in equal parts
    stored_as: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # template that the first layer has not -> the template of what a copy of that layer has there, outside the layers
    first_lacks: Mapping[str, str] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)  # config key that is true where a template is stored
    # stem before the numbers of each of several stacks of layers -> the config key of how many it has
    stacks: Mapping[str, str] = field(default_factory=dict)
    first_only: tuple[str, ...] = ()  # templates that the first layer of a stack alone has
    # stem of the norm that ends a layer and in the last one, there alone, stands before the head
    last_norm: str = ""
    headless: tuple[str, ...] = ()  # classes without a language-model head, though they are called as if they had one

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
        return _stem_and_templates(name, self.prefixes)[0]

    def template(self, name: str) -> str:
        """A stored name as the tables have it: without prefix, "{layer}" for its number and "{expert}" for a second
        one, where the table does not have either as it is and has experts.
        """
        stem, layered, template = _stem_and_templates(name, self.prefixes)
        if stem in self.tensors:
            return stem
        second = self._numbers_experts and layered not in self.tensors
        return self._beside(stem) or (template if second else layered)

    @cached_property
    def _numbers_experts(self) -> bool:
        return any("{expert}" in template for template in self.tensors)

    @cached_property
    def _any(self) -> tuple[str, ...]:
        return tuple(template for template in self.tensors if "*" in template)

    def _beside(self, stem: str) -> str:
        """The template of a tensor that is no layer's, whatever numbers its name has; "" for others."""
        return _among(stem, self._any) if self._any else ""

    def prefix_of(self, names: Iterable[str]) -> str:
        """The prefix that these names have, those of them that have one; "" where none has."""
        listed = list(names)
        return next((prefix for prefix in self.prefixes for name in listed if name.startswith(prefix)), "")

    def layer_of(self, name: str) -> int | None:
        """The layer number in a tensor's name, or None."""
        stem = self.stem(name)
        match = None if stem in self.tensors or self._beside(stem) else _NUMBER.search(stem)
        return int(match[0]) if match else None

    def stack_of(self, name: str) -> str:
        """The stem before the layer numbers of the stack that a tensor is of; "" in a model of one stack, or none."""
        stem = self.stem(name)
        return next((stack for stack in self.stacks if stem.startswith(stack)), "")

    def in_layer(self, name: str, layer: int) -> str:
        """The same tensor's name in another layer."""
        stem = self.stem(name)
        return name[: len(name) - len(stem)] + _NUMBER.sub(str(layer), stem, count=1)

    def pieces(self, name: str) -> tuple[str, ...]:
        """What stock models call what a file has under a name: one name, or one for each piece below the other."""
        stem, layer = self.stem(name), self.layer_of(name)
        held = self.stored_as.get(self.template(name), ())
        return tuple(name[: len(name) - len(stem)] + own.replace("{layer}", str(layer)) for own in held) or (name,)

    def of_expert(self, name: str, number: int) -> str:
        """The same tensor's name of another expert; its name has an expert's number."""
        stem = self.stem(name)
        start, end = [match.span() for match in _NUMBER.finditer(stem)][1]
        return f"{name[: len(name) - len(stem)]}{stem[:start]}{number}{stem[end:]}"

    def of_each_expert(self, name: str) -> bool:
        """Whether each expert has such a tensor of its own: then a token passes only those of the experts it takes."""
        return "{expert}" in self.template(name)

    def architecture(self, names: list[str]) -> str:
        """The transformers class that these tensors are a checkpoint of, for files without a config.

        Of the templates in `architectures`, "" is for names without any prefix and "*", the last one, for all others.
        """
        stems = {self.stem(name) for name in names}
        prefixed = any(name.startswith(prefix) for name in names for prefix in self.prefixes)
        for stem, architecture in self.architectures:
            if stem in stems or (stem == "" and not prefixed) or (stem == "*"):
                return architecture
        raise AssertionError("a family's list of architectures ends with '*'")

    def has_language_head(self, architecture: str) -> bool:
        """Whether a transformers class puts a language-model head on its base model: only then can a head be tied."""
        named = architecture.endswith(("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForPreTraining", *SEQUENCES))
        return named and architecture not in self.headless

    def ends_layer(self, name: str) -> bool:
        """Whether this is of the norm that ends a layer, and before the head the model."""
        return bool(self.last_norm) and self.template(name).rpartition(".")[0] == self.last_norm

    def stands_before(self, name: str) -> bool:
        """Whether a tensor outside the layers feeds them, rather than reads what they made: its line in the table
        stands above theirs.
        """
        above = takewhile(lambda template: "{layer}" not in template, self.tensors)
        return self.template(name) in above
