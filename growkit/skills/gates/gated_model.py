"""Skills on a live stock model, behind a gate: each sequence opens its own or none, and where none is open the model
computes what it computes without them, bit for bit. Knows live models; ignorant of files and of how a gate was made.

The model keeps its class, its modules and its weights: what computes differently are its `forward` and those of the
layers that a skill is on. Rows of a batch share one pass and one cache. A layer with open rows computes what the base
does and what the skill does for the whole batch, and takes each row from one of them: nothing is added to a row that is
closed, and its kernel sees the same shapes as the base's would.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.skills.gates.gate import Gate, Opened
from growkit.skills.gates.hidden_states import pooled_states
from growkit.skills.gates.skill_parts import Parts

MARK = "growkit_opened"  # on a cache: what its sequences opened
CHUNKS = "prefill_chunk_size"


@dataclass
class _Scope:
    """A call of generate. mask: the one it was given. rows: what its sequences open, once that is decided."""

    mask: torch.Tensor | None
    rows: list[Opened] | None = None


class GatedSkills:
    """The skills on a model, as `model.skills`. last: what the sequences of the newest decision opened, by name."""

    def __init__(self, model: Any, gate: Gate, parts: Sequence[Parts], strengths: Sequence[float]):
        self.model, self.gate, self._strengths = model, gate, tuple(strengths)
        self.last: list[tuple[str, ...]] = []
        self._rows: list[Opened] | None = None  # of the pass that is going on; None where all of them are closed
        self._newest: list[Opened] = []
        self._forced: list[Opened] | None = None
        self._scope: _Scope | None = None
        self._reading = False
        self._parts = list(parts)
        self._layers: dict[str, Any] = {}  # what `forward` each layer had of its own, if any
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        ]
        for name in {name: None for own in parts for name in own}:
            layer = model.get_submodule(name)
            self._layers[name] = vars(layer).get("forward")
            layer.forward = self._gated(
                layer.forward, {skill: own[name] for skill, own in enumerate(parts) if name in own}
            )
        if hasattr(model, "generate"):
            model.generate = self._generating(model.generate)
        model._apply = self._moving(model._apply)
        model.skills = self

    def unplug(self) -> None:
        """Take everything off the model again, which is then the base."""
        for hook in self._hooks:
            hook.remove()
        for name, forward in self._layers.items():
            layer = self.model.get_submodule(name)
            del layer.forward
            if forward is not None:
                layer.forward = forward
        for name in {"generate", "_apply", "skills"} & {*vars(self.model)}:
            delattr(self.model, name)

    def decide(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> list[Opened]:
        """Which skills each row of token ids (batch, length) opens, by their numbers in `gate.names`; each row by
        itself and without its padding. mask: (batch, length), 0 where a row is padded."""
        rows = [tuple((row if mask is None else row[own != 0]).tolist()) for row, own in _masked(ids, mask)]
        opened: dict[tuple[int, ...], Opened] = {(): ()}  # equal rows, such as beams, are looked at once
        before, self._reading = self._reading, True
        try:
            for row in rows:
                if row not in opened:
                    sequence = torch.tensor(row, dtype=torch.int64)
                    states = pooled_states(self.model, [sequence], self.gate.layer)
                    opened[row] = self.gate.opened(states)[0]
        finally:
            self._reading = before
        chosen = [opened[row] for row in rows]
        self.last = [self.named(each) for each in chosen]
        return chosen

    def named(self, opened: Opened) -> tuple[str, ...]:
        """The names of skills by their numbers."""
        return tuple(self.gate.names[skill] for skill in opened)

    @contextmanager
    def opening(self, *names: str) -> Iterator[None]:
        """Within the block these skills are open for every sequence, and no others, whatever the gate would say."""
        for name in names:
            if name not in self.gate.names:
                raise RequestError(f"there is no skill {name!r} here; there are {', '.join(self.gate.names)}")
        with self.decided([tuple(sorted(self.gate.names.index(name) for name in {*names}))]):
            yield

    @contextmanager
    def decided(self, rows: list[Opened]) -> Iterator[None]:
        """Within the block it is decided what the rows of every batch open. rows: one for each, or one for all."""
        before, self._forced = self._forced, rows
        try:
            yield
        finally:
            self._forced = before

    def _before(self, _model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the pass that begins will open."""
        if self._reading:
            return
        ids, cache = kwargs.get("input_ids", args[0] if args else None), kwargs.get("past_key_values")
        if ids is None:
            raise RequestError("the gate of a bundle reads token ids; give input_ids, not inputs_embeds")
        begun = cache is not None and hasattr(cache, "get_seq_length") and cache.get_seq_length() > 0
        if self._forced is not None:
            rows = self._forced
        elif self._scope is not None and self._scope.rows is not None:
            rows = self._scope.rows
        elif begun:
            rows = self._begun(cache)
        else:
            rows = self.decide(ids, self._padding(ids, kwargs.get("attention_mask")))
        if len(ids) % len(rows):
            raise RequestError(f"{len(rows)} sequences were decided on, and the batch has {len(ids)}")
        rows = [each for each in rows for _ in range(len(ids) // len(rows))]
        if self._scope is not None:
            self._scope.rows = rows
        self._newest, self._rows = rows, rows if any(rows) else None

    def _padding(self, ids: torch.Tensor, mask: Any) -> torch.Tensor | None:
        """Where a batch is padded. Before a static cache generate makes masks of another shape of the one it was given,
        which then says it."""
        given = None if self._scope is None else self._scope.mask
        plain = mask is None or (isinstance(mask, torch.Tensor) and mask.shape == ids.shape)
        if plain or given is None or len(ids) % len(given):
            return mask
        return given.repeat_interleave(len(ids) // len(given), 0)

    def _begun(self, cache: Any) -> list[Opened]:
        """What a cache's sequences opened when they were begun."""
        rows: list[Opened] | None = getattr(cache, MARK, None)
        if rows is None:
            raise RequestError("the cache was not begun by this model, so nobody has decided what it opens; begin anew")
        return rows

    def _after(self, _model: Any, _args: Any, _kwargs: Any, output: Any) -> None:
        """The pass has ended, or failed."""
        if self._reading:
            return
        self._rows = None
        values = output.values() if hasattr(output, "values") else output if isinstance(output, tuple) else ()
        for cache in (value for value in values if hasattr(value, "get_seq_length")):
            setattr(cache, MARK, self._newest)

    def _gated(self, base: Callable[..., Any], own: dict[int, torch.nn.Module]) -> Callable[..., Any]:
        """A layer's forward. base: as it is without skills. own: the parts on it, by skill."""
        within = False  # a part computes, which asks the layer for the base's part in that

        def part(skill: int, args: Any, kwargs: Any) -> Any:
            nonlocal within
            within = True
            try:
                return own[skill](*args, **kwargs)
            finally:
                within = False

        def opened(skills: Sequence[int], plain: Callable[[], Any], args: Any, kwargs: Any) -> Any:
            strengths = [self._strengths[skill] for skill in skills]
            if strengths == [1.0]:
                return part(skills[0], args, kwargs)
            output = kept = plain()
            for skill, strength in zip(skills, strengths):
                output = output + strength * (part(skill, args, kwargs) - kept)
            return output

        def forward(*args: Any, **kwargs: Any) -> Any:
            rows = self._rows
            if within or rows is None:
                return base(*args, **kwargs)
            chosen = [tuple(skill for skill in row if skill in own) for row in rows]
            kinds = sorted({*chosen})
            if len(kinds) == 1:
                return (
                    opened(kinds[0], lambda: base(*args, **kwargs), args, kwargs) if kinds[0] else base(*args, **kwargs)
                )
            output = plain = base(*args, **kwargs)
            for kind in kinds:
                if kind:
                    other = opened(kind, lambda: plain, args, kwargs)
                    output = torch.where(_mask([each == kind for each in chosen], other), other, output)
            return output

        return forward

    def _generating(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        def generating(*args: Any, **kwargs: Any) -> Any:
            settings = kwargs.get("generation_config")
            if kwargs.get(CHUNKS) or getattr(settings, CHUNKS, None):
                raise RequestError(f"a gate reads the whole prompt before it decides; leave {CHUNKS} out")
            before, self._scope = self._scope, _Scope(kwargs.get("attention_mask"))
            try:
                return generate(*args, **kwargs)
            finally:
                self._scope = before

        return generating

    def _moving(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """To another device or dtype the parts go along."""

        def moving(function: Any, *args: Any, **kwargs: Any) -> Any:
            for own in self._parts:
                for module in own.values():
                    module._apply(function)
            return apply(function, *args, **kwargs)

        return moving


def gated(model: Any, gate: Gate, parts: Sequence[Parts], strengths: Sequence[float]) -> Any:
    """Put skills on a stock model, which is handed back. parts, strengths: of each skill in the gate's order."""
    GatedSkills(model, gate, parts, strengths)
    return model


def _masked(ids: torch.Tensor, mask: torch.Tensor | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows with their masks."""
    if mask is not None and getattr(mask, "shape", None) != ids.shape:
        found = list(mask.shape) if isinstance(mask, torch.Tensor) else f"a {type(mask).__name__}"
        raise RequestError(
            f"the gate of a bundle needs an attention_mask of the shape of input_ids, {list(ids.shape)}, not {found}"
        )
    return zip(ids, ids if mask is None else mask)


def _mask(rows: list[bool], output: torch.Tensor) -> torch.Tensor:
    """For each row of an output whether it is one of these; experts have all tokens of a batch in one dimension."""
    mask = torch.tensor(rows, device=output.device)
    if output.shape[0] not in (1, len(rows)):
        mask = mask.repeat_interleave(output.shape[0] // len(rows))
    return mask.view(-1, *[1] * (output.dim() - 1))
