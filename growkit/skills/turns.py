"""What a control does: one direction of a panel turned in the running model, and which tokens become likelier by it.
Knows live models and a panel's directions; ignorant of how a panel is made.

Turning direction i of a weight by t adds t s u v^T to it: u is the i-th column of U, s the norm of the i-th row of C0,
and v what the weight itself reads there, V C0[i]^T / s. So t = -1 takes the direction away and t = 1 doubles it. Where
another direction j of the input is named, v is the j-th column of V.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, Checkpoint
from growkit.data.tokenizer import loaded_tokenizer, tokenizer_folder
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.models.devices import device_named
from growkit.models.running import check_complete, load_model, loadable, objective
from growkit.models.stock import computing
from growkit.skills.general_text import general_text
from growkit.skills.panel_file import Panel
from growkit.skills.panel_header import MAKE_AGAIN
from growkit.skills.panel_view import place_of

TOKENS = 2048  # of a batch
FIRST = 3  # directions that are turned where none is named


@dataclass(frozen=True)
class Turn:
    """A direction to turn, counted from 0. read: of the input; None for the weight's own."""

    weight: str
    write: int
    read: int | None = None


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A token and its mean probability over the text's positions, before and after."""

    token: str
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Turned:
    """What turning a direction did. write, read: counted from 1, read None for the weight's own. size: s, what t is a
    share of. kl: mean nats a token of the model over the turned one. likelier, rarer: the tokens whose mean probability
    rose and fell most."""

    weight: str
    write: int
    read: int | None
    by: float
    size: float
    kl: float
    likelier: tuple[Moved, ...]
    rarer: tuple[Moved, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def turns_of(words: Sequence[str], panel: Panel) -> list[Turn]:
    """Turns as people write them, WEIGHT:I or WEIGHT:I:J, I and J from 1, WEIGHT a name or an end of one that no other
    has; where none is named the first three directions of the last weight of the middle layer. Raises RequestError."""
    names = [*panel.header.weights]
    if not words:
        layers = sorted({place_of(name)[0] for name in names})
        last = [name for name in names if place_of(name)[0] == layers[len(layers) // 2]][-1]
        return [Turn(last, number) for number in range(min(FIRST, panel.header.weights[last].rank))]
    turns = []
    for word in words:
        asked, *numbers = word.split(":")
        whole = asked if asked.endswith(".weight") else f"{asked}.weight"
        found = [name for name in names if name == whole] or [
            name for name in names if f".{name}".endswith(f".{whole}")
        ]
        if len(found) != 1:
            some = f"{len(found)} weights end so, such as {found[0]!r}" if found else f"it has such as {names[0]!r}"
            raise RequestError(f"--turn {word!r} should name one weight of the panel: {some}")
        most = [panel.header.weights[found[0]].rank, panel.input_rank(panel.header.weights[found[0]].input)]
        if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() for number in numbers):
            raise RequestError(
                f"--turn {word!r} should be WEIGHT:I or WEIGHT:I:J, directions from 1, such as {asked}:1"
            )
        places = [int(number[:10]) for number in numbers]
        for place, limit in zip(places, most):
            if not 1 <= place <= limit:
                raise RequestError(f"--turn {word!r} should name directions from 1 to {limit}")
        turns.append(Turn(found[0], places[0] - 1, places[1] - 1 if len(places) > 1 else None))
    return turns


def turn(
    panel: Panel,
    base: Checkpoint,
    texts: Sequence[str | Path],
    turns: Sequence[Turn],
    *,
    by: float = 1.0,
    tokens: int = 4096,
    top: int = 8,
    device: str = "auto",
    begin: Callable[[int], Callable[[int], None]] = lambda _total: lambda _done: None,
) -> list[Turned]:
    """Run a causal language model over a text as it is and with each direction turned, in float32, and compare.

    begin: called with the number of batches, returns what is called as they are done. Raises RequestError for what
    fills in masks, CheckpointError for what does not load.
    """
    where = device_named(device)
    with loadable(base) as folder:
        config = read_model_config(folder / CONFIG)
        if not objective(config, base.label):
            raise RequestError(f"{base.label!r} fills in masked tokens; turning shows what a model says next")
        text = general_text(texts, folder, config, base.label, tokens, None)
        model, keys = load_model(config, folder, torch.float32)
        named = loaded_tokenizer(folder)[0] if tokenizer_folder(folder) is not None else None
    check_complete(keys, base.label, "what it says is drawn at random")
    model.config.use_cache = False
    model.to(where)
    family = family_named(config.get("model_type"))
    live = {family.stem(name): name.removesuffix(".weight") for name, _ in model.named_parameters()}
    modules = [_module(model, live.get(family.stem(one.weight)), one.weight, panel) for one in turns]
    changes = [_change(panel, one) for one in turns]
    kls, before, after = [0.0] * len(turns), torch.zeros(0), [torch.zeros(0)] * len(turns)
    batches = text.ids.split(max(1, TOKENS // text.ids.shape[1]))
    advance = begin(len(batches))
    for batch in batches:
        plain = _log_probabilities(model, batch.to(where))
        before = _sum(before, plain.exp())
        for number, (module, (size, left, right)) in enumerate(zip(modules, changes)):
            with _added(module, (by * size * left).to(where), right.to(where)):
                turned = _log_probabilities(model, batch.to(where))
            kls[number] += float((plain.exp() * (plain - turned)).sum(dtype=torch.float64))
            after[number] = _sum(after[number], turned.exp())
        advance(1)
    count = text.ids.numel()
    results = []
    for one, (size, _, _), kl, sums in zip(turns, changes, kls, after):
        order = (sums - before).argsort(descending=True).tolist()

        def moved(ids: list[int], sums: torch.Tensor = sums) -> tuple[Moved, ...]:
            return tuple(
                Moved(token=_token(named, n), before=float(before[n]) / count, after=float(sums[n]) / count)
                for n in ids
            )

        results.append(
            Turned(
                weight=one.weight,
                write=one.write + 1,
                read=None if one.read is None else one.read + 1,
                by=by,
                size=size,
                kl=kl / count,
                likelier=moved(order[:top]),
                rarer=moved(order[: -top - 1 : -1]),
            )
        )
    return results


def _module(model: Any, name: str | None, weight: str, panel: Panel) -> torch.nn.Module:
    """The live module of a weight. Raises CheckpointError where the model has none of its sides."""
    module: Any = None if name is None else model.get_submodule(name)
    if module is None or sorted(module.weight.shape) != sorted(panel.sides(weight)):
        raise CheckpointError(f"{str(panel.folder)!r} speaks of {weight!r}, which its model has not so; {MAKE_AGAIN}")
    return module


def _change(panel: Panel, one: Turn) -> tuple[float, torch.Tensor, torch.Tensor]:
    """(s, u (out,), v (in,))."""
    row = panel.control(one.weight)[one.write]
    size = float(row.norm())
    basis = panel.input_basis(panel.header.weights[one.weight].input)
    right = basis[:, one.read] if one.read is not None else basis @ (row / max(size, 1e-30))
    return size, panel.output_basis(one.weight)[:, one.write], right


@contextmanager
def _added(module: torch.nn.Module, left: torch.Tensor, right: torch.Tensor) -> Iterator[None]:
    """Within the block a linear layer puts out u (v . x) more."""
    hook = module.register_forward_hook(lambda _, inputs, output: output + (inputs[0] @ right)[..., None] * left)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def _log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(positions of all windows, vocabulary)."""
    with computing(type(model).__name__):
        return model(input_ids=ids)["logits"].flatten(0, 1).float().log_softmax(-1)


def _sum(total: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    each = more.sum(0, dtype=torch.float64).cpu()
    return each if not len(total) else total + each


def _token(tokenizer: Any, number: int) -> str:
    return f"token {number}" if tokenizer is None else repr(tokenizer.decode([number]))
