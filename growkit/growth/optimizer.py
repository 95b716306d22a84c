"""Optimizer state that grows along with weights. Knows how state is named, and where beside weights it lies; ignorant
of who writes it.

A source's state is one safetensors file: <parameter>.exp_avg, <parameter>.exp_avg_sq and, if it is there,
<parameter>.step of AdamW; where Muon moved the matrices, <parameter>.momentum_buffer of these. That of experts may be
stacked, as live models have it; the grown one is not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import Fields, ListOf, MapOf, Number, OneOf, Whole, checked
from growkit.checkpoint.headers import StoredTensor
from growkit.checkpoint.record import FORMAT
from growkit.checkpoint.small_files import read_json
from growkit.errors import CheckpointError
from growkit.families import Family
from growkit.families.stacked import live_name
from growkit.growth.depth.matching import turned
from growkit.growth.dual_rules import dual_rule, rate_multipliers
from growkit.growth.muon_rules import ADAMW, BY_INDEX, MOMENTUM, MUON, is_muons, muon_rate, rates_by_index
from growkit.growth.plan import Member, Part, Plan, TensorPlan
from growkit.limits import AXIS
from growkit.maps.axis import ABSENT, identity
from growkit.maps.notation import WRITE
from growkit.operators.rule import Rule, Selection, select

# a folder in the result: some loaders read every .safetensors file that lies beside a model's own
PLACE, OPTIMIZER, MULTIPLIERS = "optimizer", "optimizer.safetensors", "lr_multipliers.json"
FACTOR = Number(0.0, 1e9)
EACH = ListOf(FACTOR, 1, AXIS)
RUNS = Fields({"counts": ListOf(Whole(1, AXIS), 1, AXIS), "lr": EACH, "eps": EACH}, needed=("counts", "lr", "eps"))
FACTORS = Fields({"lr": FACTOR, "weight_decay": FACTOR, "eps": FACTOR, BY_INDEX: RUNS})
RATES = Fields({"multipliers": MapOf(FACTORS), "optimizer": OneOf((ADAMW, MUON))}, needed=("multipliers",))
MOMENTS = {"exp_avg": 1, "exp_avg_sq": 2, MOMENTUM: 1}
Stored = Mapping[str, StoredTensor]


def kept_state(folder: Path | None) -> Path | None:
    """The file of AdamW's state in a checkpoint's folder, None where there is none; growkit 0.2 laid it beside the
    weights."""
    places = [] if folder is None else [folder / PLACE / OPTIMIZER, folder / OPTIMIZER]
    return next((path for path in places if path.exists()), None)


def kept_rates(folder: Path | None) -> Path | None:
    """The file of learning-rate multipliers in a checkpoint's folder, None where there is none."""
    return None if folder is None or not (folder / MULTIPLIERS).exists() else folder / MULTIPLIERS


def rates_beside(state: Path) -> Path | None:
    """The file of learning-rate multipliers that goes with a file of state, None where there is none."""
    return kept_rates(state.parent) or (kept_rates(state.parent.parent) if state.parent.name == PLACE else None)


def read_rates(file: Path | None) -> dict[str, dict[str, Any]]:
    """The multipliers that a file says, by parameter; none where there is no file. Raises CheckpointError for a file
    that says anything else."""
    return {} if file is None else checked(read_json(file), RATES, file)["multipliers"]


def rates_are_of(file: Path) -> str | None:
    """Whose multipliers a file says, AdamW's or Muon's; None where it says none. Raises CheckpointError for a file that
    says anything else."""
    said = checked(read_json(file), RATES, file)
    return said.get("optimizer", ADAMW) if said["multipliers"] else None


def is_muon_state(stored: Iterable[str]) -> bool:
    """Whether a state with these entries is Muon's."""
    return any(name.endswith(f".{MOMENTUM}") for name in stored)


def optimizer_tensors(plan: Plan, stored: Sequence[Stored]) -> tuple[TensorPlan, ...]:
    """Plans for AdamW state, one file for each source: moments by the dual map, steps as they are.

    A layer that is inserted as the identity starts with first moments of 0 and the second moments of the layer it
    copies, so that its first steps are bounded. Raises CheckpointError for entries that are no state of a source's
    parameters.
    """
    experts = plan.growth.maps.get("expert")
    if experts is not None and not experts.is_identity:
        raise CheckpointError("AdamW's state does not grow along with copies of experts")
    for state, member in zip(stored, plan.members):
        _check(state, member)
    tensor_plans = []
    tied = plan.growth.tied
    # copies of one layer share their parts, as their weights do
    moments: dict[tuple[int, str, bool], tuple[Part, ...]] = {}
    one = select(identity(1), WRITE)
    kept = Rule(rows=one, columns=one, role=WRITE)
    for tensor in plan.tensors:
        origin = tensor.parts[0]
        for name, known in zip(_names(tensor.name, plan, tied), _names(origin.name, plan, tied)):
            for kind in (*MOMENTS, "step"):
                entry = stored[origin.source].get(f"{known}.{kind}")
                if entry is None:
                    _check_lacking(tensor.parts, known, kind, plan, stored)
                    continue
                if kind == "step":
                    step = Part(source=origin.source, name=f"{known}.{kind}", rule=kept)
                    tensor_plans.append(
                        TensorPlan(name=f"{name}.{kind}", shape=entry.shape, dtype=entry.dtype, parts=(step,))
                    )
                    continue
                key = (id(tensor.parts), f"{known}.{kind}", tensor.inserted)
                if key not in moments:
                    moments[key] = tuple(
                        _moment(part, known, kind, tensor.inserted, plan, stored) for part in tensor.parts
                    )
                tensor_plans.append(
                    TensorPlan(name=f"{name}.{kind}", shape=tensor.shape, dtype=entry.dtype, parts=moments[key])
                )
    return tuple(tensor_plans)


def _check_lacking(parts: Sequence[Part], known: str, kind: str, plan: Plan, stored: Sequence[Stored]) -> None:
    """Refuse state that only some of a tensor's sources have."""
    for part in parts[1:]:
        if kind in MOMENTS and _stored_name(part, known, kind, plan) in stored[part.source]:
            raise _lacks(plan.members[parts[0].source], f"{known}.{kind}")


def _lacks(member: Member, name: str) -> CheckpointError:
    return CheckpointError(
        f"the optimizer state of {member.label!r} lacks {name!r}, which the grown state needs; give all of it"
    )


def _stored_name(part: Part, known: str, kind: str, plan: Plan) -> str:
    """What a part's moment is called: as its tensor is, or as live models name a head."""
    return f"{part.name if known not in plan.family.heads else known}.{kind}"


def _check(state: Stored, member: Member) -> None:
    """Refuse entries that are no state of the member's parameters."""
    family = member.growth.family
    shapes = {name: shape for name, shape in member.shapes.items() if name not in member.dropped}
    for name in list(shapes):
        if _is_head(family, name, member.growth.tied):
            shapes |= dict.fromkeys(family.heads, shapes[name])
    for name, entry in state.items():
        parameter, _, kind = name.rpartition(".")
        if kind == "step" and parameter in shapes and entry.elements == 1:
            continue
        if kind not in MOMENTS or parameter not in shapes:
            raise CheckpointError(
                f"optimizer entry {name!r} is no exp_avg, exp_avg_sq or step of a parameter of {member.label!r}; name"
                " entries <parameter>.exp_avg and <parameter>.exp_avg_sq"
            )
        if entry.shape != shapes[parameter]:
            raise CheckpointError(
                f"optimizer entry {name!r} has shape {list(entry.shape)}, its parameter {list(shapes[parameter])}"
            )


def _moment(part: Part, known: str, kind: str, inserted: bool, plan: Plan, stored: Sequence[Stored]) -> Part:
    """The part of a moment that goes with a part of its parameter."""
    member = plan.members[part.source]
    name = _stored_name(part, known, kind, plan)
    if name not in stored[part.source]:
        raise _lacks(member, name)
    rule = dual_rule(part.like or part.name, member.shapes[part.name], member.growth, MOMENTS[kind])
    if plan.recipe.mode != "side-by-side":  # there, dual_rule knows; elsewhere sources take turns
        rule = member.growth.once(("present", rule, part.rule), lambda: _where_present(rule, part.rule))
    if part.pair is not None and part.pair.turn is not None:
        rule = turned(rule, part.pair.turn)
    if part.rule.share != rule.share:
        rule = replace(rule, share=part.rule.share)
    return Part(source=part.source, name=name, rule=rule.silent if inserted and MOMENTS[kind] == 1 else rule)


def _where_present(moment: Rule, weight: Rule) -> Rule:
    """A moment's rule, ABSENT wherever its weight's is."""
    return replace(moment, rows=_present(moment.rows, weight.rows), columns=_present(moment.columns, weight.columns))


def _present(moment: Selection, weight: Selection) -> Selection:
    return moment if weight.everywhere else moment.only(weight.mode != ABSENT)


def learning_rates(plan: Plan, before: Sequence[Mapping[str, Any]] = (), muon: bool = False) -> dict[str, Any]:
    """Per-parameter multipliers that make AdamW on the grown model step as it did on the small one; muon: that and Muon
    (growkit.growth.muon_rules).

    With weights grown by w and gradients by g: lr * w, weight_decay / w, eps * g (arXiv 2602.10545). Tensors
    whose entries have different multipliers get their root mean square: outputs then follow the source's exactly only
    at whole multiples with noise 0, and on average elsewhere. Gemma's gains must not decay: what decays is gain - 1.
    before: the multipliers each source already trains with, by parameter; they are multiplied in.
    """
    rates: dict[str, dict[str, Any]] = {}
    for tensor in plan.tensors:
        part = tensor.parts[0]
        factors, meet = [], _meet(tensor.parts)
        for each in tensor.parts if meet else tensor.parts[:1]:
            member = plan.members[each.source]
            own = rate_multipliers(each.like or each.name, member.shapes[each.name], member.growth)
            factors.append([factor * each.rule.share for factor in own] if meet else own)
        weight, gradient = (sum(kind) for kind in zip(*factors))  # one, or what sources that meet give together
        multipliers: dict[str, Any] = {"lr": weight, "weight_decay": 1.0 / weight if weight else 1.0, "eps": gradient}
        rated = before[part.source] if before else {}
        earlier = rated.get(part.name) or rated.get(live_name(plan.family, part.name)[0]) or {}
        place = part.like or part.name, plan.members[part.source].shapes[part.name], plan.members[part.source].growth
        muons = muon and is_muons(plan.family, part.name)
        if muons:
            rate = muon_rate(*place)
            multipliers = {"lr": rate, "weight_decay": 1.0 / rate, "eps": 1.0}
        multipliers = {key: value * earlier.get(key, 1.0) for key, value in multipliers.items()}
        if muon and not muons and (runs := rates_by_index(*place, earlier)) is not None:
            multipliers[BY_INDEX] = runs
        names = (tensor.name, live_name(plan.family, tensor.name)[0], *_names(tensor.name, plan))
        rates |= dict.fromkeys(names, multipliers)
    return {"format": FORMAT, "optimizer": MUON if muon else ADAMW, "multipliers": rates}


def _meet(parts: Sequence[Part]) -> bool:
    """Whether all parts have a share in every entry."""
    return all(part.rule.rows.everywhere and part.rule.columns.everywhere for part in parts)


def _names(name: str, plan: Plan, tied: bool = False) -> tuple[str, ...]:
    """What a parameter is called: as it is stored, and a head also as live models name it (GPT-NeoX has two names).

    tied: so is an embedding, whose state goes by the name that a model has for it first (XLM-RoBERTa's head).
    """
    return tuple(dict.fromkeys((name, *plan.family.heads))) if _is_head(plan.family, name, tied) else (name,)


def _is_head(family: Family, name: str, tied: bool) -> bool:
    """Whether a tensor is an output head; tied: or the embedding that is one."""
    return family.stem(name) in family.heads or (tied and family.stem(name) == family.embedding)
