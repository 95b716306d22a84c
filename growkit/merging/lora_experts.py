"""A LoRA of PEFT on stacked experts (target_parameters) as changes of each expert's own tensors. Knows how PEFT lays
the factors of all experts out; ignorant of files.

Live models hold the experts of a layer as (experts, out, in), the gate and what stands beside it as one. PEFT stores A
as (experts rank, in), expert after expert, and B as (out, rank experts), where the expert is what changes fastest. It
wraps a parameter around another of the same module, so which of them a name means is told by shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from growkit.checkpoint.source import Checkpoint
from growkit.errors import CheckpointError
from growkit.families.stacked import split_with
from growkit.merging.lora import LoraChange
from growkit.merging.lora_base import LoraBase
from growkit.merging.lora_config import LoraConfig

WRAPPED = ".base_layer"


@dataclass(frozen=True)
class _Stack:
    """A live parameter of all experts, or the part of it that one expert's tensor is."""

    shape: tuple[int, ...]
    expert: int = 0
    first: int = 0  # row of the live parameter's


def expert_changes(
    config: LoraConfig, stored: Checkpoint, here: LoraBase, module: str, parts: Mapping[str, str]
) -> dict[str, LoraChange]:
    """What A and B of all experts of a layer do to each expert's tensors, by stem; nothing for another module.

    Raises CheckpointError for shapes that are no expert's.
    """
    targets = config.content.get("target_parameters") or []
    owner = module.removesuffix(WRAPPED)
    fused = {name: _shape(here, owner, name, templates) for name, templates in _stacks(here, owner).items()}
    if not targets or not fused or not {"a", "b"} <= parts.keys():
        return {}
    a, b = (stored.tensors[parts[part]].shape for part in ("a", "b"))
    for name, (experts, out, into) in fused.items():
        rank = config.rank_of(f"{owner}.{name}")
        aimed = any(f"{owner}.{name}".endswith(f".{target}") or target == f"{owner}.{name}" for target in targets)
        if not aimed or (a, b) != ((rank * experts, into), (out, rank * experts)):
            continue
        change = LoraChange(base="", a=parts["a"], b=parts["b"], scale=config.scale_of(f"{owner}.{name}"))
        pieces = split_with(here.family, {f"{owner}.{name}": _Stack((experts, out, into))}, _piece)
        return {
            here.stem(one): replace(
                change,
                base=here.name(config.label, parts["a"], here.stem(one)),
                expert=(piece.expert, experts, piece.first),
            )
            for one, piece in pieces.items()
        }
    asked = ", ".join(f"{name} (experts, out, in) {list(shape)}" for name, shape in fused.items())
    raise CheckpointError(
        f"{config.label!r} has {parts['a']!r} of shape {list(a)} and its B of {list(b)}, which with its rank and"
        f" target_parameters is none of {asked}, which {here.headers.label!r} has"
    )


def _stacks(here: LoraBase, owner: str) -> dict[str, tuple[str, ...]]:
    """Stacked parameters of a module of the live model: name -> the templates that one expert stores it under."""
    family = here.family
    found = {}
    for live, templates in family.experts.fused.items():
        of, _, name = live.rpartition(".")
        if of == family.template(owner) and family.of_each_expert(templates[0]):
            found[name] = templates
    return found


def _shape(here: LoraBase, owner: str, name: str, templates: tuple[str, ...]) -> tuple[int, int, int]:
    """(experts, out, in) of a stacked parameter, from what the base stores."""
    pieces = split_with(here.family, {f"{owner}.{name}": _Stack((1, len(templates), 1))}, lambda stack, *_: stack)
    out, into = here.headers.shapes[here.names[here.stem(next(iter(pieces)))]]
    return here.family.number(here.headers.config, here.family.sizes["expert"]), out * len(templates), into


def _piece(stack: _Stack, expert: int, place: int, parts: int) -> _Stack:
    rows = stack.shape[1] // parts
    return _Stack((rows, stack.shape[2]), expert, place * rows)
