"""`growkit check-family`: a family's table of axes held against stock models."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.family_check.checked_family import FamilyCheck

Names = Annotated[
    str | Sequence[str], Argument("Families, as model_type in config.json has them.", "[FAMILY]...", True)
]
Done = Annotated[Callable[["FamilyCheck"], None], Callback("Called with each check when it is done.")]


def _quiet(_check: "FamilyCheck") -> None:
    return None


@public
def check_family(
    families: Names = (),
    *,
    every: Annotated[bool, Option(help="All that growkit knows.", flags=("--all",))] = False,
    done: Done = _quiet,
) -> "tuple[FamilyCheck, ...]":
    """Hold a family's table against small stock models: every tensor, line, shape and role, every growth measured.

    The models are drawn at random, every gain and bias away from its default; heads tied and not, each setting that the
    family names. Each axis grows alone, all grow together, layers are inserted; what the plan calls exact must come out
    equal in float64, whole and through the cache, and what it does not call exact must differ. A fault names its line.

    families: names of model types. Returns one FamilyCheck each: .ok, .faults, .growths. Raises RequestError for a
    family that growkit does not have.
    """
    from growkit.family_check.checked_family import check_families

    names = [families] if isinstance(families, str) else list(families)
    return check_families(names, every, done)
