"""The commands that look and compare: verify, inspect, check-family. Knows what is shown of them; everything else is
the library's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import FAILED
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.family_check.checked_family import FamilyCheck
    from growkit.growth.inspect import Inspection
    from growkit.models.verify import Verification


def comparing(call: Callable[..., "Verification"], as_json: bool) -> int:
    """Show a comparison; it fails where two checkpoints are too far apart."""
    from growkit.cli import show

    report = call()
    show.report(report, as_json)
    return 0 if report.ok else FAILED


def looking(call: Callable[..., "Inspection"], as_json: bool) -> None:
    """Show what a checkpoint is."""
    from growkit.cli import show

    show.inspection(call(), as_json)


def holding(call: Callable[..., "tuple[FamilyCheck, ...]"], as_json: bool) -> int:
    """Show each family's check as it is done; it fails where one has a fault."""
    from growkit.cli import show_families

    checks = call(done=(lambda _check: None) if as_json else show_families.line)
    show_families.checks(checks, as_json)
    return 0 if all(check.ok for check in checks) else FAILED


command(api.verify, comparing)
command(api.inspect, looking)
command(api.check_family, holding, name="check-family")
