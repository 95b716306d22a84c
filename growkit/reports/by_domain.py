"""What a run gained and forgot, domain by domain, and what experts tell of domains. Knows what validation said at a
run's entry and at its end; ignorant of how that was measured, and of torch.

Domain adaptation is told by both: how much better a model became on the domain that it should learn, and how much
worse on what it knew (Qin et al., arXiv 2105.13880).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from growkit.reports.runs import Curve, ToldDomains

TITLE = "By domain, nats per token of validation text"
TOLD = "What the experts of the last validation text's tokens tell of their domains: mutual information"
TOLD_HEADINGS = ("layer", "run", "nats", "of at most", "share")
HEADINGS = ("domain", "run", "teacher", "at entry", "at the end", "gained", "forgotten")


class DomainChange(NamedTuple):
    """One domain in one run. teacher: what taught it, None: nothing. entry, end: its loss at the first and at the last
    validation. gain: how far it fell; below 0 it rose, which is what was forgotten."""

    domain: str
    teacher: str | None
    entry: float
    end: float
    gain: float


def changes(curve: Curve) -> tuple[DomainChange, ...]:
    """What a run gained of each domain that both its first and its last validation tell; none of untagged text."""
    first, last = curve.val[0].domains, curve.final.domains
    return tuple(
        DomainChange(name, _teacher(curve.settings.get("teacher"), name), first[name], end, first[name] - end)
        for name, end in last.items()
        if name in first
    )


def domain_table(
    runs: Sequence[tuple[str, Sequence[DomainChange]]],
) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The table of all domains, each run's line beside the others'; none where no run has any. runs: (name, its
    changes)."""
    names = list(dict.fromkeys(change.domain for _, changed in runs for change in changed))
    rows: list[tuple[str, ...]] = [
        (
            *(name, run, change.teacher or "none", f"{change.entry:.4f}", f"{change.end:.4f}"),
            *(f"{change.gain:.4f}" if change.gain >= 0 else "", f"{-change.gain:.4f}" if change.gain < 0 else ""),
        )
        for name in names
        for run, changed in runs
        for change in changed
        if change.domain == name
    ]
    return [(TITLE, HEADINGS, rows)] if rows else []


def told_table(
    runs: Sequence[tuple[str, Sequence[ToldDomains]]],
) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The table of all sparse layers, counted from 1, each run's line beside the others'; none where no run has any.
    runs: (name, what its experts told)."""
    rows: list[tuple[str, ...]] = [
        (f"{t.layer + 1}", run, f"{t.nats:.4f}", f"{t.most:.4f}", f"{t.nats / t.most:.0%}" if t.most else "")
        for layer in sorted({t.layer for _, told in runs for t in told})
        for run, told in runs
        for t in told
        if t.layer == layer
    ]
    return [(TOLD, TOLD_HEADINGS, rows)] if rows else []


def _teacher(teacher: Any, domain: str) -> str | None:
    """What taught a domain, of what run.json says: one teacher for all, or one for each of some domains."""
    return teacher.get(domain) if isinstance(teacher, dict) else teacher
