"""Which dense tensors make which tensor of a mixture of experts, and what of it is drawn. Knows the rules that keep the
function; ignorant of requests and of settings.

Experts that are copies of one feed-forward layer compute it again whatever the router says, since the gates of the
experts a token takes sum to 1 (sparse upcycling, arXiv 2212.05055). Finer experts are slices of a copy: the router's
rows are equal for all slices of a copy, so that a token takes whole copies, and as each slice then has 1/G of the gate,
the linear tensors carry a factor of G (virtual groups, arXiv 2410.07524). Beside a shared expert, whose gate starts at
sigmoid(0), the linear tensors of the shared one carry 2. (That gate is not quite 0: where a runtime computes sigmoid(x)
as silu(x) / x, as llama.cpp does, 0 would be no number.) Several fine-tuned models become experts in turn, everything
else is their mean (Branch-Train-MiX, arXiv 2403.07816).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce

import numpy as np
import torch
from einops import repeat

from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.families.upcycling import FeedForward, Upcycling
from growkit.growth.plan import Part, TensorPlan
from growkit.growth.rules import unchanged
from growkit.growth.source_headers import Headers
from growkit.growth.upcycle.experts import ROUTER_STD, Widths, factors
from growkit.growth.width.sizes import Sizes
from growkit.maps.axis import AxisMap, axis_map
from growkit.operators.draws import Fill, Given, Redraw, any_units
from growkit.operators.rule import Selection, rule_of

GATE = 1e-20  # entries of a shared expert's gate: sigmoid of what it makes is 1/2 to the last bit, in float64 too


@dataclass(kw_only=True)
class Mixture:
    """One mixture of experts in the making: its sources, and how their units are dealt out to experts.

    copies: how many times a feed-forward layer stands in each of `layers`; copy c is that of source c mod len(sources).
    diversity: none, noise or drop, and its share. dtype: of what is written, None for as it was.
    """

    sources: Sequence[Headers]
    row: Upcycling
    widths: Widths
    layers: frozenset[int]
    copies: int
    diversity: tuple[str, float]
    seed: int
    dtype: torch.dtype | None
    shared_parts: dict[tuple[str, int, int], tuple[Part, ...]] = field(default_factory=dict)

    @property
    def dense(self) -> Family:
        return family_named(self.row.source)

    @property
    def sparse(self) -> Family:
        return family_named(self.row.target)

    @property
    def identical(self) -> bool:
        """Whether all sources are one checkpoint."""
        return len({source.origin or source.label for source in self.sources}) == 1

    def maps(self, sizes: Sizes) -> dict[str, AxisMap]:
        """Nothing grows but the number of feed-forward layers; `expert` says which source each is of."""
        index = repeat(np.arange(self.copies) % len(self.sources), "copy -> (copy slice)", slice=self.widths.slices)
        return {
            **unchanged(sizes),
            "expert": axis_map("copies", len(self.sources), index, 1.0, 1.0),
        }

    def plans(self) -> tuple[TensorPlan, ...]:
        """All target tensors, in the order of the first source's file; a layer's experts where its block stood."""
        plans: list[TensorPlan] = []
        begun: set[int] = set()
        for name in self.sources[0].shapes:
            if self.dense.is_buffer(name):
                continue
            layer, template = self.dense.layer_of(name), self.dense.template(name)
            if layer not in self.layers or template not in self.row.dense:
                self._check_place(name, template)
                plans.append(self._kept(name))
            elif layer is not None and layer not in begun:
                begun.add(layer)
                plans += self._layer(name, layer)
        return tuple(plans)

    def _check_place(self, name: str, template: str) -> None:
        if template not in self.sparse.tensors:
            raise RequestError(
                f"tensor {name!r} of {self.sources[0].label!r} has no place in a {self.row.target}, which knows no such bias;"
                " growkit upcycles models without it"
            )

    def _layer(self, name: str, layer: int) -> list[TensorPlan]:
        """The router, all experts and a shared expert of one layer. name: any tensor of its feed-forward block."""
        prefix = name[: len(name) - len(self.dense.stem(name))]

        def at(template: str, expert: int = 0) -> str:
            return prefix + template.replace("{layer}", str(layer)).replace("{expert}", str(expert))

        w, experts = self.widths, self.copies * self.widths.slices
        dense = FeedForward(*map(at, self.row.dense))
        hidden, dtype = self.sources[0].shapes[dense.gate][1], self._dtype_of(dense.gate)
        router = Fill((experts, hidden), ROUTER_STD, w.slices)
        plans = [TensorPlan(name=at(self.row.router), shape=router.shape, dtype=dtype, parts=(), draw=router)]
        for expert in range(experts):
            copy, piece = divmod(expert, w.slices)
            first = w.shared + piece * w.slice
            draws = self._draws(f"expert {expert} of layer {layer}")
            names = FeedForward(*(at(template, expert) for template in self.row.expert))
            plans += self._block(dense, names, copy % len(self.sources), first, w.slice, w.slices, draws)
        if self.row.shared is not None:
            names = FeedForward(*map(at, self.row.shared))
            plans += self._block(dense, names, None, 0, w.shared, 2, (None, None, None))
            gate = Given(torch.full((1, hidden), _next_to_nothing(dtype), dtype=torch.float64))
            plans.append(TensorPlan(name=at(self.row.shared_gate), shape=(1, hidden), dtype=dtype, parts=(), draw=gate))
        return plans

    def _draws(self, expert: str) -> tuple[Redraw | None, ...]:
        """What is drawn anew in the three tensors of an expert. Units are the same in all three: a unit stays whole or
        goes whole, as in the paper (drawing them for each tensor apart would leave (1-r)^3 of the units, not 1-r)."""
        kind, share = self.diversity
        if kind == "none":
            return None, None, None
        if kind == "noise":
            return (Redraw(added=share),) * 3
        units = any_units(self.widths.slice, share, self.seed, expert)
        return Redraw(rows=units), Redraw(rows=units), Redraw(columns=units)

    def _block(
        self,
        dense: FeedForward,
        names: FeedForward,
        source: int | None,
        first: int,
        width: int,
        factor: int,
        draws: Sequence[Redraw | None],
    ) -> list[TensorPlan]:
        """`width` units of a dense block, from `first` on, times a factor; of one source, or the mean of all (None)."""
        givers = self._givers() if source is None else {source: 1.0}
        plans = []
        for role, origin, name, scale, draw in zip(FeedForward._fields, dense, names, (1.0, *factors(factor)), draws):
            writes = role == "down"
            shape = self.sources[0].shapes[origin]
            new = (shape[0], width) if writes else (width, shape[1])
            key = (origin, -1 if source is None else source, first)
            if key not in self.shared_parts:
                self.shared_parts[key] = tuple(
                    self._part(number, origin, weight * scale, first, width, columns=writes)
                    for number, weight in givers.items()
                )
            plans.append(
                TensorPlan(name=name, shape=new, dtype=self._dtype_of(origin), parts=self.shared_parts[key], draw=draw)
            )
        return plans

    def _kept(self, name: str) -> TensorPlan:
        """A tensor outside the experts: as it is, or the mean of all sources."""
        parts = tuple(self._part(number, name, weight) for number, weight in self._givers().items())
        return TensorPlan(name=name, shape=self.sources[0].shapes[name], dtype=self._dtype_of(name), parts=parts)

    def _givers(self) -> dict[int, float]:
        """What each source gives to a mean."""
        count = 1 if self.identical else len(self.sources)
        return {number: 1.0 / count for number in range(count)}

    def _part(
        self, source: int, name: str, weight: float, first: int = 0, width: int | None = None, columns: bool = False
    ) -> Part:
        """A source's tensor times a weight, all of it or `width` rows or columns from `first` on."""
        shape = self.sources[source].shapes[name]
        runs = [(size, 0, size) for size in shape]
        if width is not None:
            runs[int(columns)] = (shape[int(columns)], first, width)
        selections = [_run(*run, amplitude) for run, amplitude in zip(runs, (weight, 1.0))]
        roles = [dimension.role for dimension in self.dense.axes_of(name)]
        return Part(source=source, name=name, rule=rule_of(selections, roles))

    def _dtype_of(self, name: str) -> torch.dtype:
        return self.dtype or reduce(torch.promote_types, [source.dtypes[name] for source in self.sources])


def _next_to_nothing(dtype: torch.dtype) -> float:
    """GATE, or the least number above 0 that a dtype holds."""
    limits = torch.finfo(dtype)
    return max(GATE, limits.tiny * limits.eps)


@lru_cache(maxsize=256)
def _run(old: int, first: int, count: int, amplitude: float) -> Selection:
    """`count` indices from `first` on, times an amplitude; one for all tensors of these sizes, for there are many."""
    return Selection(old, np.arange(first, first + count), np.full(count, amplitude), np.zeros(count, np.int8))
