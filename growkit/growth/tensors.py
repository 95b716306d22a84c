"""Which source tensors make which target tensor, by which rule. Knows what each mode of growth asks of a name; ignorant
of sizes and of how maps were chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce
from typing import Any

import numpy as np
import torch

from growkit.errors import RequestError
from growkit.families import Family
from growkit.families.stacked import expert_of
from growkit.growth.depth.layers import place
from growkit.growth.plan import Part, TensorPlan
from growkit.growth.request import DIRECT_COPY, SHRINK_PERTURB, Recipe
from growkit.growth.rules import Growth, check_shape, grown_shape, is_embedding, tensor_rule
from growkit.growth.source_headers import Headers
from growkit.growth.width.more_experts import experts_map
from growkit.growth.width.uneven import unevenness
from growkit.maps.axis import ABSENT, AxisMap
from growkit.maps.notation import GAIN, SHIFT, UNSIZED, WRITE
from growkit.operators.draws import Redraw, Rest
from growkit.operators.rule import Rule, by_turns


@dataclass(kw_only=True)
class TensorPlans:
    """The tensors of a plan, in the order of the first source's file, layers in theirs."""

    sources: Sequence[Headers]
    growths: Sequence[Growth]
    layers: Mapping[str, AxisMap]  # of each stack, by the stem before its numbers
    depths: Sequence[Mapping[str, int]]  # of each source whose layers these are, how many each stack has
    recipe: Recipe
    shared_parts: dict[Any, tuple[Part, ...]] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        return self.growths[0].family

    @cached_property
    def branch_norms(self) -> set[str]:
        """Templates of the norms that there are over what a block adds to the stream."""
        stored = {self.family.template(name) for name in self.sources[0].shapes}
        return stored & {*self.family.norms.branch}

    def plans(self) -> tuple[TensorPlan, ...]:
        """All target tensors. Raises CheckpointError where a stored shape is not what its config says."""
        for source, growth in zip(self.sources, self.growths):
            for name, shape in source.shapes.items():
                if not self.family.is_buffer(name):
                    check_shape(name, shape, growth)
        if self.recipe.mode is not None:
            self._check_alike()
        return tuple(
            self._plan(copy, source, origin, inserted)
            for name, source, origin, inserted in self._targets()
            for copy in self._copies(name, origin)
        )

    def _copies(self, name: str, origin: str) -> list[str]:
        """The names of a tensor's copies: those of one expert, or the tensor's own."""
        if not self.family.of_each_expert(origin) or self.growths[0].maps["expert"].is_identity:
            return [name]
        return [self.family.of_expert(name, int(number)) for number in self._places(origin)]

    def _places(self, name: str) -> np.ndarray:
        """Which experts copy that of a source's tensor."""
        return np.flatnonzero(self._growth(0, name).maps["expert"].index == expert_of(self.family, name))

    def _growth(self, source: int, name: str) -> Growth:
        """The growth of a source's tensor: experts may be copied otherwise in each layer."""
        growth, layer = self.growths[source], self.family.layer_of(name)
        if layer is None or layer not in self.recipe.copies:
            return growth
        counts, experts = self.recipe.copies[layer], growth.maps.get("expert")
        if experts is None or (len(counts), sum(counts)) != (experts.old, experts.new):
            raise RequestError(f"{list(counts)} are no copies of the experts of layer {layer + 1}")

        def own() -> Growth:
            copied = experts_map(experts.old, experts.new, counts)
            return replace(growth, maps={**growth.maps, "expert": copied})

        return growth.once(("experts of layer", layer), own)

    def _among(self, name: str, origin: str) -> tuple[int, int] | None:
        """(place among an expert's copies, their number) of what is split between them; None for all else."""
        growth = self._growth(0, origin)
        split = growth.sum_of_copies and growth.noise != 0 and self.family.of_each_expert(origin)
        if not split or not self._writes_stream(origin):
            return None
        copies = self._places(origin)
        return int(np.searchsorted(copies, expert_of(self.family, name))), len(copies)

    def _check_alike(self) -> None:
        """Refuse sources that do not grow to one shape, in sizes that no config states (labels)."""
        first = self.sources[0]
        for source, growth in zip(self.sources[1:], self.growths[1:]):
            for name, shape in first.shapes.items():
                if self.family.is_buffer(name):
                    continue
                shapes = grown_shape(name, shape, self.growths[0]), grown_shape(name, source.shapes[name], growth)
                if shapes[0] != shapes[1]:
                    raise RequestError(
                        f"{first.label!r} and {source.label!r} would have tensor {name!r} as {list(shapes[0])} and"
                        f" {list(shapes[1])}; only models of one task become one"
                    )

    def _targets(self) -> list[tuple[str, int, str, bool]]:
        """(name, source, name there, whether its layer is inserted) of each target tensor."""
        own = [name for name in self.sources[0].shapes if not self.family.is_buffer(name)]
        if all(layers.is_identity for layers in self.layers.values()) and len(self.depths) == 1:
            return [(name, 0, name, False) for name in own]
        stacks = {stack: self._stacked(stack) for stack in self.layers}
        targets: list[tuple[str, int, str, bool]] = []
        for name in own:
            if self.family.layer_of(name) is None:
                source = 0 if self.family.stands_before(name) else len(self.sources) - 1
                targets.append((name, source, name, False))
            else:  # all layers of a stack stand where the first tensor of one does
                targets += stacks.pop(self.family.stack_of(name), [])
        return targets

    def _stacked(self, stack: str) -> list[tuple[str, int, str, bool]]:
        """The same of the layers of one stack."""
        in_layers: list[dict[int, list[str]]] = [{} for _ in self.sources]
        for by_layer, headers in zip(in_layers, self.sources):
            for name in headers.shapes:
                layer = self.family.layer_of(name)
                if layer is not None and not self.family.is_buffer(name) and self.family.stack_of(name) == stack:
                    by_layer.setdefault(layer, []).append(name)
        silent = self.layers[stack].sides[WRITE].amplitude == 0
        stacked = []
        for target, number in enumerate(self.layers[stack].index):
            source, layer = place(number, [counts[stack] for counts in self.depths])
            origins = {self.family.in_layer(name, target): name for name in in_layers[source].get(layer, ())}
            if layer == 0 and target > 0:
                origins |= self._lent(source, target)
            if target == 0:  # what the first layer alone has stays with the first
                origins |= {name: name for name in in_layers[source].get(0, ()) if self._is_firsts(name)}
            lacked = self.family.first_only if target else self.family.first_lacks
            stacked += [
                (name, source, origin, bool(silent[target]))
                for name, origin in origins.items()
                if self.family.template(name) not in lacked
            ]
        return stacked

    def _is_firsts(self, name: str) -> bool:
        return self.family.template(name) in self.family.first_only

    def _lent(self, source: int, target: int) -> dict[str, str]:
        """What a copy of the first layer has that this layer lacks -> the tensor outside the layers that it is."""
        shapes = self.sources[source].shapes
        prefix = self.family.prefix_of(shapes)
        return {
            prefix + template.replace("{layer}", str(target)): prefix + lender
            for template, lender in self.family.first_lacks.items()
            if prefix + lender in shapes
        }

    def _plan(self, name: str, source: int, origin: str, inserted: bool) -> TensorPlan:
        key = (
            source,
            origin,
            inserted and self._is_silenced(origin),
            self._like(name, source, origin),
            self._among(name, origin),
        )
        if key not in self.shared_parts:
            self.shared_parts[key] = self._parts(*key)
        shape = grown_shape(origin, self.sources[source].shapes[origin], self._growth(source, origin))
        stored = [self.sources[part.source].dtypes[part.name] for part in self.shared_parts[key]]
        return TensorPlan(
            name=name,
            shape=shape,
            dtype=self.recipe.dtype or reduce(torch.promote_types, stored),
            parts=self.shared_parts[key],
            inserted=inserted,
            draw=None if key[2] else self._draw(name, origin, source, len(shape), self.shared_parts[key][0].rule),
        )

    def _like(self, name: str, source: int, origin: str) -> str:
        """The name of one that has a target's axes, where it comes from `origin`, whose may be others."""
        family, stack = self.family, self.family.stack_of(name)
        if family.template(name) in family.first_lacks and family.layer_of(origin) is None:
            return family.in_layer(name, 1)
        if not family.ends_layer(name):
            return origin
        count = self.growths[source].depths[stack]
        ends = family.layer_of(name) == self.layers[stack].new - 1
        return family.in_layer(origin, count - 1 if ends else count)  # the last one, or none that is

    def _draw(self, name: str, origin: str, source: int, dimensions: int, rule: Rule) -> Redraw | Rest | None:
        """What direct-copy leaves open of a tensor, and what shrink-perturb adds to a matrix of a model that becomes
        wider; vectors stay, and a stored copy of the embedding stays one."""
        growth = self.growths[source]
        if self.recipe.method == DIRECT_COPY:
            whole = rule.rows.everywhere and rule.columns.everywhere
            return None if whole else Rest(rows=rule.rows.mode == ABSENT, columns=rule.columns.mode == ABSENT)
        grows = any(not axis.is_identity for axis in growth.maps.values())
        if self.recipe.method != SHRINK_PERTURB or not grows or dimensions < 2:
            return None
        keep = self.recipe.keep
        key = self.family.embedding if is_embedding(origin, growth) else name
        return Redraw(added=(1.0 - keep**2) ** 0.5, kept=keep, key=key)

    def _parts(
        self, source: int, name: str, silent: bool, like: str, among: tuple[int, int] | None
    ) -> tuple[Part, ...]:
        """The parts of a target tensor. like: the name of one that has its axes: `name`, where that is not lent. among:
        which of several that are added it is.
        """
        if self.recipe.mode == "side-by-side":
            givers = [(number, name) for number in range(len(self.sources))]
            rules = [self._rule(*giver) for giver in givers]
        elif self.recipe.mode is not None:
            above = self.recipe.mode == "aki"
            others = range(1, len(self.sources))
            givers = [(0, name), *((number, self._above(number, name) if above else name) for number in others)]
            # what has no place of its own for each member, such as a row of logits, is divided by what it reads
            first = self.growths[0].dimensions(name)[:1]
            columns = not first or first[0].axes[0] in (*UNSIZED, "vocab")
            rules = self._turns(self._rule(0, name), len(givers), columns)
        else:
            donor = self._above(source, name) if self.recipe.method == "aki" else name
            givers = [(source, name)] + ([(source, donor)] if donor != name else [])
            rules = self._turns(self._rule(source, name, like), len(givers))
        if among is not None:
            noise = unevenness(self.recipe.noise, among[1])
            rules = [
                self.growths[source].once(("among", rule, among), partial(replace, rule, among=among, noise=noise))
                for rule in rules
            ]
        return tuple(
            Part(
                source=number,
                name=stored,
                rule=rule.silent if silent else rule,
                like="" if like == stored else like,
            )
            for (number, stored), rule in zip(givers, rules)
        )

    def _turns(self, rule: Rule, count: int, columns: bool = False) -> list[Rule]:
        """by_turns, made once for all tensors that share a rule."""
        return self.growths[0].once(("turns", rule, count, columns), lambda: by_turns(rule, count, columns))

    def _rule(self, source: int, name: str, like: str = "") -> Rule:
        return tensor_rule(like or name, self.sources[source].shapes[name], self._growth(source, name))

    def _above(self, source: int, name: str) -> str:
        """The same tensor one layer up, where AKI takes new units from; the tensor itself where there is none."""
        layer = self.family.layer_of(name)
        if layer is None or any(d.role in (GAIN, SHIFT) for d in self.growths[source].dimensions(name)):
            return name
        above = self.family.in_layer(name, layer + 1)
        return above if above in self.sources[source].shapes else name

    def _is_silenced(self, name: str) -> bool:
        """Whether a layer adds nothing to the stream once this tensor, and others like it, are zero."""
        if self.branch_norms:
            return self.family.template(name) in self.branch_norms
        return self._writes_stream(name)

    def _writes_stream(self, name: str) -> bool:
        return any(d.role == WRITE and d.axes == ("hidden",) for d in self.growths[0].dimensions(name))
