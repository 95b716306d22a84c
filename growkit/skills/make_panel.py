"""A control panel made of a checkpoint: the weights of one input after another, each read, put into bases and written.
Knows the order of things; ignorant of how bases are computed and of what a panel is used for.

Memory holds the weights of one group, and with text the model and the moments of one layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, Checkpoint
from growkit.checkpoint.stream import is_finite, kind_of
from growkit.checkpoint.writer import Shape, check_target
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.sources import headers_of, open_source
from growkit.growth.spelling import layers_in_ranges
from growkit.growth.width.sizes import read_sizes
from growkit.merging.mergeable import check_each
from growkit.models.devices import device_named
from growkit.models.running import check_complete, load_model, loadable
from growkit.models.verify import room_for
from growkit.operators.seeds import generator
from growkit.skills.bases import input_directions, kept, output_directions, stacked
from growkit.skills.controlled import ALL, ATTENTION, MODULES, ControlledWeight, InputGroup, input_groups
from growkit.skills.general_text import GeneralText, general_text
from growkit.skills.layer_inputs import LayerInputs
from growkit.skills.panel_file import C0, K, U, V, write_panel
from growkit.skills.panel_header import ABSOLUTE, DATA, RELATIVE, SVD, PanelHeader, PanelWeight, is_panel
from growkit.skills.skill_cards import panel_card

Moments = dict[str, torch.Tensor]  # E[x x^T] (in, in) by group; none without text
Put = Callable[[str, torch.Tensor], None]


@dataclass(frozen=True, kw_only=True)
class PanelRequest:
    """What is asked of a panel. layers: such as "1-8,12"; None for all. tokens: of the text, at most; seq_len: of its
    windows."""

    rank: int = 256
    basis: str = SVD
    scale: str = RELATIVE
    layers: str | None = None
    modules: str = ALL
    texts: Sequence[str | Path] = ()
    tokens: int = 32_768
    seq_len: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse words that mean nothing. Raises RequestError."""
        for flag, word, words in (
            ("--basis", self.basis, (SVD, DATA)),
            ("--scale", self.scale, (RELATIVE, ABSOLUTE)),
            ("--modules", self.modules, MODULES),
        ):
            if word not in words:
                raise RequestError(f"{flag} {word!r} is not one of {', '.join(words)}")
        if self.basis == DATA and not self.texts:
            raise RequestError("--basis data follows what the model reads of a text; give one with --text")


@dataclass(frozen=True, kw_only=True)
class MadePanel:
    """A panel that was made. notes: what a person should know of it."""

    folder: Path
    header: PanelHeader
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Where it is, and what panel.json says."""
        return {"folder": str(self.folder), "notes": list(self.notes), **self.header.to_json()}


def make_panel(
    base: str | Path,
    out: str | Path,
    request: PanelRequest,
    device: str = "auto",
    force: bool = False,
    begin: Callable[[int], Callable[[int], None]] = lambda _total: lambda _done: None,
) -> MadePanel:
    """Make the panel of a checkpoint. begin: called with the number of groups, returns what is called as they are done.

    Raises RequestError or CheckpointError, having written nothing.
    """
    request.check()
    where = device_named(device)
    with closing(open_source(base)) as source:
        headers = headers_of(source)
        family = check_each([headers])
        count = read_sizes(family, headers.config)["layer"]
        layers = range(count) if request.layers is None else layers_in_ranges(request.layers, count)
        groups = input_groups(family, headers.config, headers.shapes, layers, request.modules)
        named = [Path(path) for path in (base, *request.texts) if Path(path).exists()]
        replaces = check_target(Path(out), named, force, is_panel, "panel")
        shapes = [entry for group in groups for entry in _shapes(group, request)]
        with _inputs(source, family, request, where) as (text, inputs):
            advance = begin(len(groups))

            def fill(put: Put) -> PanelHeader:
                weights: dict[str, PanelWeight] = {}
                for layer in sorted({group.layer for group in groups}):
                    own = [group for group in groups if group.layer == layer]
                    moments = inputs(own) if text is not None else {}
                    for group in own:
                        weights |= _put_group(group, source, request, moments.pop(group.name, None), where, put)
                        advance(1)
                return PanelHeader(
                    base=source.name,
                    files=source.hashes(),
                    rank=request.rank,
                    basis=request.basis,
                    scale=request.scale,
                    weights=weights,
                    texts=None if text is None else text.words,
                    seed=request.seed,
                )

            header = write_panel(Path(out), shapes, fill, replaces, lambda said: panel_card(source, said))
    return MadePanel(folder=Path(out), header=header, notes=tuple(_notes(family, groups, request)))


def _shapes(group: InputGroup, request: PanelRequest) -> Iterator[tuple[str, Shape]]:
    rank = group.rank(request.rank)
    yield group.name + V, (group.width, rank)
    if request.texts:
        yield group.name + K, (rank, rank)
    for weight in group.weights:
        own = min(rank, weight.out)
        yield weight.name + U, (weight.out, own)
        yield weight.name + C0, (own, rank)


def _put_group(
    group: InputGroup,
    source: Checkpoint,
    request: PanelRequest,
    moment: torch.Tensor | None,
    where: torch.device,
    put: Put,
) -> dict[str, PanelWeight]:
    """Write what a panel has of a group, and say it of its weights."""
    matrices = {weight.name: _read(source, weight).to(where) for weight in group.weights}
    moment = moment if moment is None else moment.to(where)
    followed = moment if request.basis == DATA else None
    draws = generator(request.seed, f"panel/{group.name}")
    found = input_directions(stacked([*matrices.values()], followed), group.rank(request.rank), draws, followed)
    put(group.name + V, found.basis.cpu())
    if moment is not None:
        basis = found.basis.double()
        sketch = basis.T @ moment @ basis
        put(group.name + K, ((sketch + sketch.T) / 2).cpu())
    weights = {}
    for name, matrix in matrices.items():
        left, control = output_directions(matrix, found.basis, followed)
        put(name + U, left.cpu())
        put(name + C0, control.cpu())
        weights[name] = PanelWeight(
            input=group.name,
            rank=left.shape[1],
            energy=kept(matrix, left, control, found.basis),
            text_energy=None if moment is None else kept(matrix, left, control, found.basis, moment),
            error=found.error,
        )
    return weights


def _read(source: Checkpoint, weight: ControlledWeight) -> torch.Tensor:
    """A weight (out, in), float32, or float64 where it is stored so. Raises CheckpointError where it is not finite."""
    stored = source.rows(weight.name, np.arange(source.tensors[weight.name].shape[0]))
    if not is_finite(stored):
        raise CheckpointError(f"tensor {weight.name!r} of {source.label!r} holds {kind_of(stored)}; fetch it again")
    matrix = stored.to(torch.float64 if stored.dtype == torch.float64 else torch.float32)
    return matrix.T.contiguous() if weight.across else matrix


@contextmanager
def _inputs(
    source: Checkpoint, family: Family, request: PanelRequest, where: torch.device
) -> Iterator[tuple[GeneralText | None, Callable[[list[InputGroup]], Moments]]]:
    """The text, and what gives the moments of the groups of a layer, layers in order; nothing where there is none.
    Raises RequestError where there is no room for the model."""
    if not request.texts:
        yield None, lambda _: {}
        return
    with loadable(source) as folder:
        config = read_model_config(folder / CONFIG)
        text = general_text(request.texts, folder, config, source.label, request.tokens, request.seq_len)
        lacking = room_for(sum(tensor.elements for tensor in source.tensors.values()), "running the model over --text")
        if lacking and where.type == "cpu":
            raise RequestError(f"{lacking}; a panel without --text needs one layer at a time")
        stored = {tensor.dtype for tensor in source.tensors.values()}
        model, keys = load_model(config, folder, torch.float64 if torch.float64 in stored else torch.float32)
    check_complete(keys, source.label, "what it makes of a text is drawn at random")
    model.to(where)
    live = {family.stem(name): name.removesuffix(".weight") for name, _ in model.named_parameters()}
    inputs = LayerInputs(model, text.ids.to(where))

    def moments(groups: list[InputGroup]) -> Moments:
        modules = {group.name: live[family.stem(group.weights[0].name)] for group in groups}
        return inputs.moments(groups[0].layer, modules)

    yield text, moments


def _notes(family: Family, groups: Sequence[InputGroup], request: PanelRequest) -> Iterator[str]:
    cut = {(group.rank(request.rank), group.name) for group in groups if group.rank(request.rank) < request.rank}
    short = [weight for group in groups for weight in group.weights if weight.out < group.rank(request.rank)]
    if cut or short:
        least = min([rank for rank, _ in cut] + [weight.out for weight in short])
        yield (
            f"rank {request.rank} is more than a side of some weights has: {len(cut)} inputs of {len(groups)} and the"
            f" outputs of {len(short)} weights have fewer directions, down to {least}"
        )
    if family.is_moe and request.modules != ATTENTION:
        yield (
            f"the experts of a {family.model_type} are left out: a token passes few of them, and stock models hold them"
            " in one tensor; attention, and what every token passes, is controlled"
        )
    if request.texts and request.basis == DATA:
        wide = max(group.width for group in groups)
        if request.tokens < wide:
            yield f"{request.tokens:,} tokens cannot show all {wide:,} directions of an input; give more with --tokens"
