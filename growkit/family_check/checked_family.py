"""A family held against stock models: its table without numbers, then every growth of small models, measured. Knows
what is asked of a plan; ignorant of terminals.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES, Family
from growkit.families.text_part import flattened
from growkit.family_check.blame import blamed, lifted
from growkit.family_check.growths import growths_to_try
from growkit.family_check.in_float64 import float32_parts_in_double
from growkit.family_check.one_growth import NO_MORE_THAN, MeasuredGrowth, grown_small
from growkit.family_check.small_models import small_config, small_model, stock_classes
from growkit.family_check.table_lines import table_faults
from growkit.growth.width.sizes import read_sizes

DIFFERS = 1e-6  # less is no difference that a plan should warn of
EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class CheckedGrowth:
    """One growth of one small model. difference: largest over the largest value, of what it puts out whole and through
    the cache; None where it is refused. exactness: the plan's word, or "refused". fault: what is wrong, "" for nothing;
    reason: why it is refused, "" where it is not.
    """

    model: str
    settings: Mapping[str, Any]
    tied: bool
    growth: str
    exactness: str
    difference: float | None
    reason: str = ""
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class FamilyCheck:
    """All that was tried of one family. table: faults of its lines that need no growth to be seen."""

    family: str
    table: tuple[str, ...]
    growths: tuple[CheckedGrowth, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault in a sentence, each once."""
        return tuple(dict.fromkeys([*self.table, *(g.fault for g in self.growths if g.fault)]))

    @property
    def ok(self) -> bool:
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """The check as plain data."""
        return {"ok": self.ok, "faults": list(self.faults), **asdict(self)}


def check_one(family: Family) -> FamilyCheck:
    """Hold one family against stock models: its table first, then growths up to the first fault."""
    table = tuple(table_faults(family))
    growths: list[CheckedGrowth] = []
    with float32_parts_in_double():
        for checked in () if table else _growths(family):
            growths.append(checked)
            if checked.fault:
                break  # one fault has many faces
    return FamilyCheck(family=family.model_type, table=table, growths=tuple(growths))


def _growths(family: Family) -> Iterator[CheckedGrowth]:
    """Every growth of the language model, tied and untied; of its other settings and classes the telling ones."""
    language_model, *others = stock_classes(family)
    ways: list[tuple[Any, Mapping[str, Any], bool, tuple[str, ...] | None]] = []
    ways += [(language_model, {}, tied, None) for tied in (True, False)]
    few = (
        "hidden x2",
        "hidden x1.5",
        "heads x2",
        "kv heads to heads",
        "head_dim x2",
        "hidden and ffn",
        "experts x2",
        "all",
    )
    ways += [(language_model, variant, tied, few) for variant in family.variants for tied in (True, False)]
    ways += [(other, {"pad_token_id": 1}, True, ("hidden x2", "hidden and ffn", "all")) for other in others]
    for architecture, settings, tied, names in ways:
        config = small_config(family, **settings, tie_word_embeddings=tied)
        tries = growths_to_try(read_sizes(family, flattened(config.to_dict())), "ffn" in family.sizes)
        model = small_model(family, architecture, **settings, tie_word_embeddings=tied)
        for name in names or tries:
            if name in tries:
                yield _checked(family, model, dict(settings), tied, name, tries[name])


def _checked(
    family: Family, model: Any, settings: Mapping[str, Any], tied: bool, name: str, growth: Mapping[str, Any]
) -> CheckedGrowth:
    what: dict[str, Any] = dict(model=type(model).__name__, settings=settings, tied=tied, growth=name)
    which = f"{what['model']}{_said(settings, tied)} grown by {name}"
    try:
        measured = grown_small(family, model, growth)
    except RequestError as refusal:
        wrong = lifted(family, model, growth) if name == "hidden x2" else ""
        fault = wrong and f"{which} is refused ({refusal}), but {wrong}"
        return CheckedGrowth(**what, exactness="refused", difference=None, reason=str(refusal), fault=fault)
    except CheckpointError as refusal:
        # what stock code made is sound: a family may only say that its layers cannot stand elsewhere
        fault = "" if "layers" in growth else f"{which}: growkit refuses what transformers made: {refusal}"
        return CheckedGrowth(**what, exactness="refused", difference=None, reason=str(refusal), fault=fault)
    except (AssertionError, RuntimeError) as broken:
        return CheckedGrowth(**what, exactness="broken", difference=None, fault=f"{which} does not work: {broken}")
    fault = _fault(family, model, growth, measured, which)
    return CheckedGrowth(**what, exactness=measured.exactness, difference=measured.difference, fault=fault)


def _fault(family: Family, model: Any, growth: Mapping[str, Any], measured: MeasuredGrowth, which: str) -> str:
    """A sentence where what came out is not what the plan says; "" where it is."""
    if measured.exactness == EXACT and measured.difference > NO_MORE_THAN:
        return (
            f"{which}: the plan says exact, but outputs differ by {measured.difference:.1e};"
            f" {blamed(family, model, growth, measured)}"
        )
    if measured.exactness != EXACT and measured.difference <= DIFFERS:
        return (
            f"{which}: the plan says {measured.exactness}, but outputs differ by no more than {measured.difference:.1e}:"
            " a fact of the family says less than is true"
        )
    return ""


def _said(settings: Mapping[str, Any], tied: bool) -> str:
    words = [f"{key} {value}" for key, value in settings.items()]
    return f" ({', '.join([*words, 'head ' + ('tied' if tied else 'not tied')])})"


def check_families(names: Sequence[str], every: bool, done: Callable[[FamilyCheck], None]) -> tuple[FamilyCheck, ...]:
    """Check families by name, or all. done: called with each check when it is done. Raises RequestError for a name that
    is no family's, or for none.
    """
    if bool(names) == every:
        raise RequestError("name the families to check, such as `growkit check-family llama`, or all of them by --all")
    for name in names:
        if name not in FAMILIES:
            nearest = get_close_matches(name, FAMILIES, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(sorted(FAMILIES))}"
            raise RequestError(f"growkit has no family {name!r}{hint}")
    checks = []
    for name in dict.fromkeys(names) if names else FAMILIES:
        checks.append(check_one(FAMILIES[name]))
        done(checks[-1])
    return tuple(checks)
