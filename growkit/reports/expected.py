"""What a forecast says: losses at budgets, and when scratch passes, as plain data, as tables and as a page. Knows
figures; ignorant of how they were found, and of torch.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from growkit.reports.growth_law import FittedLaw, Pilot
from growkit.reports.savings import Table, page
from growkit.version import __version__

FORMAT = 1
Between = tuple[float, float]  # nine in ten of the bootstrap's draws lie there


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Losses, in nats, at a budget of the large model's tokens. base: tokens of the small model before it was grown.
    saved: the share of the budget that the grown model does not need to come to scratch's loss; with_source: what the
    base cost counted, None where nobody said it."""

    tokens: float
    base: float
    scratch: float
    scratch_between: Between
    grown: float
    grown_between: Between
    saved: float
    saved_between: Between
    saved_with_source: float | None


@dataclass(frozen=True, kw_only=True)
class Passing:
    """Tokens from which on scratch is ahead of what was grown from a base: infinite where that is beyond the horizon,
    `first` where it is from the shortest pilot on. extra: of the large model's own; total: where scratch learns what
    the base cost too. never: the share of draws in which it stays behind at as many of its own."""

    base: float
    first: float
    extra: float
    extra_between: Between
    never: float
    total: float | None
    total_between: Between | None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A law fitted to pilots, and what follows. flops: of a token of the large model. share: what a token of the small
    one costs of that, None where nobody said it. model: the large one's config. horizon: tokens up to
    which scratch was looked at."""

    pilots: tuple[Pilot, ...]
    names: tuple[str, ...]
    flops: float
    share: float | None
    model: dict[str, Any]
    fitted: FittedLaw
    expected: tuple[Expected, ...]
    passing: tuple[Passing, ...]
    horizon: float
    notes: tuple[str, ...]
    folder: Path

    def noting(self, note: str) -> "Forecast":
        """The same with one more note."""
        return replace(self, notes=(*self.notes, note))

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain data: what report.json holds. A number that is infinite is null there."""
        return {
            "format": FORMAT,
            "growkit": __version__,
            "command": "forecast",
            "runs": list(self.names),
            "pilots": [pilot._asdict() for pilot in self.pilots],
            "model": self.model,
            "flops_of_token": self.flops,
            "source_share": self.share,
            "law": asdict(self.fitted.law),
            "draws": [asdict(law) for law in self.fitted.draws],
            "worst": self.fitted.worst,
            "expected": [_finite(asdict(one)) for one in self.expected],
            "passing": [_finite(asdict(one)) for one in self.passing],
            "horizon": self.horizon,
            "notes": list(self.notes),
        }

    def tables(self) -> list[Table]:
        """The tables for people."""
        law, several = self.fitted.law, len(self.fitted.law.grown) > 2
        counted = self.share is not None
        losses: list[tuple[str, ...]] = [
            (
                *(tokens_text(one.tokens), _base(one.base)),
                *(
                    f"{one.scratch:.3f} ({_range(one.scratch_between)})",
                    f"{one.grown:.3f} ({_range(one.grown_between)})",
                ),
                f"{_share(one.saved)} ({_share(one.saved_between[0])} to {_share(one.saved_between[1])})",
                *([_share(one.saved_with_source)] if counted else []),
            )
            for one in self.expected
        ]
        passed: list[tuple[str, ...]] = [
            (
                _base(one.base),
                f"{self._when(one.extra, one.first)} ({self._when(one.extra_between[0], one.first)} to"
                f" {self._when(one.extra_between[1], one.first)})",
                f"{one.never:.0%}",
                *([self._when(one.total, one.first)] if one.total is not None else []),
            )
            for one in self.passing
        ]
        power = f"{-law.grown[1]:.3f}" if several else "-"
        own = f"{-law.exponent(self.passing[0].base):.3f} to {-law.exponent(self.passing[-1].base):.3f}"
        fitted: list[tuple[str, ...]] = [
            ("loss that no tokens take away", f"{law.floor:.3f}"),
            ("exponent of tokens, from scratch", f"{-law.scratch[1]:.3f}"),
            ("exponent of tokens, grown", own if several else f"{-law.grown[1]:.3f}"),
            ("exponent of the base's tokens", power),
            ("pilots", str(len(self.pilots))),
            ("farthest pilot from the law, nats", f"{self.fitted.worst:.4f}"),
        ]
        source = ("with source",) if counted else ()
        return [
            ("Loss at a budget; nine in ten draws lie between the numbers in parentheses",
             ("tokens", "base", "scratch", "grown", "saved", *source), losses),
            ("When scratch passes, in tokens of the large model",
             ("base", "at as many tokens", "never", *(("at as many operations in all",) if counted else ())), passed),
            ("The law", ("what", "fitted"), fitted),
        ]  # fmt: skip

    def markdown(self) -> str:
        """What report.md holds."""
        return page("A forecast from pilots", self.tables(), self.notes)

    def _when(self, tokens: float | None, first: float) -> str:
        if tokens is None or math.isinf(tokens):
            return f"> {tokens_text(self.horizon)}"
        return f"< {tokens_text(first)}" if tokens <= first else tokens_text(tokens)


def tokens_text(number: float) -> str:
    """Tokens for people: 25.0 M."""
    for unit, one in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if number >= one:
            return f"{number / one:,.1f}{unit}"
    return f"{number:.0f}"


def _base(tokens: float) -> str:
    return tokens_text(tokens) if tokens else "unknown"


def _range(between: Between) -> str:
    return f"{between[0]:.2f} to {between[1]:.2f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}" if share >= -1.0 else "< -100%"


def _finite(content: dict[str, Any]) -> dict[str, Any]:
    """Plain data without infinite numbers, which JSON has none of."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: plain(value) for key, value in content.items()}
