"""A skill, or a LoRA, carried over a growth of its base: from the request of `growkit skill carry` to a folder. Knows
the order of things; ignorant of arithmetic.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.card import ADAPTER as RELATION
from growkit.checkpoint.card import model_card
from growkit.checkpoint.folder import write_folder
from growkit.checkpoint.made_for import check_made_for, check_result, check_same_weights
from growkit.checkpoint.record import record, source_entries
from growkit.checkpoint.source import ADAPTER_CONFIG, PROVENANCE, Checkpoint
from growkit.checkpoint.writer import check_target, write_json
from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.growth.plan import Plan
from growkit.growth.recorded import recorded_growth
from growkit.growth.source_headers import Headers
from growkit.growth.sources import headers_of, open_source
from growkit.growth.width.sizes import read_sizes
from growkit.maps.exactness import Exactness
from growkit.merging.lora_file import Factors, live_modules, lora_settings, write_factors
from growkit.merging.lora_tensors import open_lora
from growkit.models.running import is_causal
from growkit.models.small.targets import linears_among
from growkit.skills.carried import CarriedWeight, carried_skill, carried_weights, factors_of
from growkit.skills.controlled import ALL, input_groups
from growkit.skills.gates.own_file import has_gate
from growkit.skills.plug import is_lora
from growkit.skills.skill_cards import skill_card
from growkit.skills.skill_file import SKILL, is_skill, read_skill, write_skill
from growkit.version import __version__

COMMAND, LORA = "skill carry", "LoRA"
Path_ = str | Path


@dataclass(frozen=True, kw_only=True)
class CarriedOver:
    """What was carried. kind: "skill" or "LoRA". weights: how many it changes. rank: of the LoRA that it is. exactness:
    of the growth, and so of this. notes: what a person should know of it."""

    folder: Path
    kind: str
    weights: int
    rank: int
    exactness: Exactness
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        said = {"folder": str(self.folder), "kind": self.kind, "weights": self.weights, "rank": self.rank}
        return {**said, "exactness": str(self.exactness), "notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class _Carried:
    """What will be written: factors by the stem of the weight, and what else (a skill's own files)."""

    source: Checkpoint
    sides: Mapping[str, tuple[int, int]]
    rank: int
    factors: Iterable[Factors]
    card: str
    more: Callable[[Path], None] = lambda _: None


def carry_skill(base: Path_, skill: Path_, grown: Path_, out: Path_, *, force: bool = False) -> CarriedOver:
    """Carry a skill of `skill learn`, or a LoRA of PEFT, from a base to what was grown of it.

    force: in the place of a LoRA of growkit's that is there. Raises RequestError or CheckpointError, having written
    nothing.
    """
    place = Path(skill)
    check_result(place)
    with ExitStack() as opened:
        checkpoint, large = open_source(base), open_source(grown)
        for one in (checkpoint, large):
            opened.callback(one.close)
        plan = recorded_growth(checkpoint, large)
        replaces = check_target(
            Path(out), [path for path in map(Path, (base, skill, grown)) if path.exists()], force, is_lora, "LoRA of growkit's"
        )  # fmt: skip
        headers = headers_of(large)
        family = family_named(headers.config.get("model_type"))
        kind = "skill" if is_skill(place) else LORA
        make = _skill if is_skill(place) else _lora
        carried = make(place, checkpoint, large, plan, headers, family)
        opened.callback(carried.source.close)
        called, targets = live_modules(family, headers, carried.sides, large.label)
        across = any(one.across for one in linears_among(family, headers.config, headers.shapes))

        def fill(folder: Path) -> None:
            sides = {called[stem]: side for stem, side in carried.sides.items()}
            write_factors(folder, sides, carried.rank, ((called[stem], a, b) for stem, a, b in carried.factors))
            task = "CAUSAL_LM" if is_causal(headers.config) else None
            said: dict[str, Any] = {"task_type": task, "base_model_name_or_path": str(grown)}
            write_json(folder / ADAPTER_CONFIG, {**said, **lora_settings(carried.rank, carried.rank, targets, across)})
            carried.more(folder)

        sources = [large, carried.source]
        write_folder(
            Path(out),
            sources=sources,
            fill=fill,
            record=lambda hashes: record(
                COMMAND,
                family=family.model_type,
                request={"kind": kind},
                exactness=plan.exactness,
                sources=source_entries(sources, hashes),
            ),
            card=carried.card,
            replaces=replaces,
        )
    return CarriedOver(
        folder=Path(out), kind=kind, weights=len(carried.sides), rank=carried.rank, exactness=plan.exactness,
        notes=tuple(_notes(plan, place)),
    )  # fmt: skip


def _linears(family: Family, headers: Headers) -> list[str]:
    return [f"{linear.module}.weight" for linear in linears_among(family, headers.config, headers.shapes)]


def _skill(folder: Path, base: Checkpoint, grown: Checkpoint, plan: Plan, headers: Headers, family: Family) -> _Carried:
    skill = read_skill(folder)
    check_same_weights(folder, skill.facts.base["name"], skill.facts.base["files"], base, SKILL)
    layers = range(read_sizes(family, headers.config)["layer"])
    inputs = input_groups(family, headers.config, headers.shapes, layers, ALL)
    groups = {weight.name: group.name for group in inputs for weight in group.weights}
    facts, tensors = carried_skill(skill, plan, groups, {"name": grown.name, "files": grown.hashes()})
    named = {weight: family.stem(weight) for weight in facts.weights}
    sides = {
        stem: (len(tensors[f"{weight}.U_s"]), len(tensors[f"{facts.weights[weight]}.V_s"]))
        for weight, stem in named.items()
    }
    return _Carried(
        source=skill.stored,
        sides=sides,
        rank=max(tensors[f"{group}.V_s"].shape[1] for group in facts.weights.values()),
        factors=((named[weight], a, b) for weight, a, b in factors_of(facts, tensors)),
        card=skill_card(grown, facts),
        more=lambda place: write_skill(place, facts, tensors),
    )


def _lora(folder: Path, base: Checkpoint, grown: Checkpoint, plan: Plan, headers: Headers, family: Family) -> _Carried:
    if not (folder / ADAPTER_CONFIG).is_file():
        raise RequestError(
            f"{str(folder)!r} is neither a skill nor a LoRA of PEFT; others are not carried over a growth"
        )
    check_made_for(folder, base)
    lora = open_lora(folder, base, headers_of(base), family).member
    linears = {*_linears(family, headers_of(base))}
    changes = {change.base: change for change in lora.changes.values()}
    for name, change in changes.items():
        if name not in linears or change.copy or change.magnitude or change.bias or change.expert or not change.a:
            raise RequestError(
                f"{str(folder)!r} changes {name!r} otherwise than by A and B of a linear layer inside the model's layers;"
                " growkit apply it to its base, and grow the result"
            )
    weights = carried_weights(plan, changes)

    def factors(weight: CarriedWeight) -> Factors:
        change = changes[weight.origin]
        a, b = (lora.stored.whole(name).double() for name in (change.a, change.b))
        return family.stem(weight.name), weight.read(a.T).T, change.scale * weight.written(b)

    return _Carried(
        source=lora.stored,
        sides={family.stem(weight.name): weight.sides for weight in weights},
        rank=max(lora.stored.tensors[change.a].shape[0] for change in changes.values()),
        factors=map(factors, weights),
        card=_card(grown, folder.resolve().name),
    )


def _card(grown: Checkpoint, name: str) -> str:
    return model_card(
        f"{name}, for {grown.name}",
        f"The LoRA `{name}` carried by growkit {__version__} over the growth that made `{grown.name}`; the model itself is"
        f" not in it. Hashes of both: `{PROVENANCE}`.",
        sources=[grown],
        relation=RELATION,
        tags=("growkit", "lora"),
        library="peft",
    )


def _notes(plan: Plan, folder: Path) -> Iterable[str]:
    if plan.exactness is not Exactness.EXACT:
        yield (
            f"the growth itself is {plan.exactness}: so is the skill on its result; measure it with growkit eval --adapter"
        )
    if has_gate(folder):
        yield (
            "its gate stays behind, which knows the base's hidden states: skill plug --gated reads them anew with --own"
            " NAME=DATA"
        )
