"""A base as an adapter of PEFT sees it: which tensor a module of the live model is, what it reads, and what is one
tensor under two names. Knows stems and axes; ignorant of what an adapter stores.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.source_headers import Headers, architecture_of, is_tied
from growkit.maps.notation import READ
from growkit.merging.lora import LoraChange
from growkit.merging.lora_config import LoraConfig


@dataclass(frozen=True)
class LoraBase:
    """The base as an adapter sees it: by stems, a tied head among them."""

    headers: Headers
    family: Family
    names: Mapping[str, str]  # stem -> the name it is stored under; a tied head is the embedding

    def stem(self, name: str) -> str:
        """A name in the adapter as a stem of the base's."""
        stem = self.family.stem(name)
        heads = [head for head in self.family.heads if head in self.names]
        return heads[0] if stem in self.family.heads and heads else stem

    def name(self, label: str, stored: str, stem: str) -> str:
        """What the base stores a stem as. Raises RequestError where it does not."""
        name = self.names.get(stem)
        if name is None:
            raise RequestError(
                f"{label!r} has tensor {stored!r}, and {self.headers.label!r} has no {stem!r} that it would change; add"
                " it to the base it was made from"
            )
        return name

    def outputs(self, stem: str) -> tuple[bool, bool]:
        """(whether a matrix reads what it multiplies, as a linear layer, whether its outputs are columns)."""
        dimensions = self.family.axes_of(stem, architecture_of(self.family, self.headers))
        linear = any(dimension.role == READ for dimension in dimensions)
        return linear, not linear or dimensions[0].role == READ

    def untie(self, changes: dict[str, LoraChange], shared: dict[str, LoraChange]) -> bool:
        """Whether a tied head must be stored by itself, since the LoRA is on it or on the embedding alone.

        What stands in the base itself stands in both.
        """
        if not is_tied(self.family, self.headers):
            return False
        head, embedding = self.stem(self.family.heads[0]), self.family.embedding
        common = shared.pop(head, None) or shared.pop(embedding, None)
        untied = head in changes or embedding in changes
        if common is not None:
            shared |= dict.fromkeys((head, embedding) if untied else (embedding,), common)
        return untied

    def check_saved(self, config: LoraConfig, changes: Mapping[str, LoraChange]) -> None:
        """Raises CheckpointError for a module that was trained whole, says the config, and is not in the file."""
        for stem in sorted({*self.names} - {*changes}):
            if is_saved(config, stem.rpartition(".")[0]):
                raise CheckpointError(
                    f"{config.label!r} has modules_to_save {[*config.saved]}, and does not hold {stem!r}; save it again"
                )


def lora_base(headers: Headers, family: Family) -> LoraBase:
    """The base of these headers as an adapter sees it."""
    names = {family.stem(name): name for name in headers.shapes if not family.is_buffer(name)}
    if is_tied(family, headers) and not {*names} & {*family.heads}:
        names[family.heads[0]] = names[family.embedding]
    return LoraBase(headers, family, names)


def is_saved(config: LoraConfig, module: str) -> bool:
    """Whether a module, or one that it is part of, was trained whole. As peft.utils.other._set_trainable."""
    steps = module.split(".")
    return any(".".join(steps[: end + 1]).endswith(name) for end in range(len(steps)) for name in config.saved)
