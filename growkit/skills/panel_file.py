"""The folder of a control panel: panel.json and panel.safetensors, written whole and read strictly. Knows its tensors;
ignorant of how a panel is made and of what is done with it.

For every linear weight W (out, in) that it has, by the name of the checkpoint, and for every group of weights that read
one input:
    WEIGHT.U    (out, r_w)   orthonormal columns: where its output can be moved
    WEIGHT.C0   (r_w, r_g)   U^T W V, what the weight itself does between the two
    GROUP.V     (in, r_g)    orthonormal columns: what is read of the input
    GROUP.K     (r_g, r_g)   V^T C V of general text, C = E[x x^T] of the input; only where there was text
All float32. r_g and r_w are the panel's rank, or less where a side of a weight is shorter: r_g of a group is at most
its input's width, r_w at most the weight's output and its group's r_g.

U is orthonormal whatever the scale is: that is kept in C0, whose row norms say how much of W lies on each direction.
`output_scale` makes the factor of it, by which a learner multiplies the rows of R: dW = U diag(s) R V^T.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from growkit.checkpoint.card import CARD
from growkit.checkpoint.headers import StoredTensor, file_hash
from growkit.checkpoint.made_for import check_same_weights
from growkit.checkpoint.new_folder import NOTHING, Contents, new_folder
from growkit.checkpoint.source import Checkpoint, open_state
from growkit.checkpoint.system import reserve, write_at
from growkit.checkpoint.writer import Shape, check_space, layout, write_json
from growkit.errors import CheckpointError
from growkit.skills.panel_header import MAKE_AGAIN, PANEL, RELATIVE, PanelHeader, read_panel_header

PANEL_WEIGHTS = "panel.safetensors"
U, V, C0, K = ".U", ".V", ".C0", ".K"
ORTHONORMAL = 1e-3  # how far V^T V may be from the identity, entry by entry


@dataclass(kw_only=True)
class Panel:
    """A panel that was opened: what it says, and its tensors, each read when it is asked for."""

    folder: Path
    header: PanelHeader
    stored: Checkpoint = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Of panel.safetensors: what a skill knows its panel by."""
        return file_hash(self.folder / PANEL_WEIGHTS)

    def sides(self, weight: str) -> tuple[int, int]:
        """(out, in) of a weight."""
        group = self.header.weights[weight].input
        return self.stored.tensors[weight + U].shape[0], self.stored.tensors[group + V].shape[0]

    def input_rank(self, group: str) -> int:
        """How many directions of an input the panel has."""
        return self.stored.tensors[group + V].shape[1]

    def output_basis(self, weight: str) -> torch.Tensor:
        """U (out, r_w) of a weight, float32. Raises CheckpointError where its columns are not orthonormal."""
        return self._orthonormal(weight + U)

    def input_basis(self, group: str) -> torch.Tensor:
        """V (in, r_g) of a group, float32. Raises CheckpointError where its columns are not orthonormal."""
        return self._orthonormal(group + V)

    def control(self, weight: str) -> torch.Tensor:
        """C0 (r_w, r_g) = U^T W V of a weight, float32. Raises CheckpointError where it is not finite."""
        return self._read(weight + C0)

    def sketch(self, group: str) -> torch.Tensor | None:
        """K (r_g, r_g) = V^T C V of a group's input over general text, float32; None for a panel without text.
        Raises CheckpointError for what is no covariance."""
        if self.header.texts is None:
            return None
        sketch = self._read(group + K)
        if (
            not torch.allclose(sketch, sketch.T, rtol=1e-4, atol=1e-6 * float(sketch.abs().max()))
            or (sketch.diagonal() < 0).any()
        ):
            raise self._unsound(group + K, "should be symmetric, its diagonal at least 0")
        return sketch

    def output_scale(self, control: torch.Tensor) -> torch.Tensor:
        """The factor s (m,) of the rows of R, from C0 (m, r_g) or, for directions U Q, from Q^T C0.

        With Adam every entry of R takes steps of one size. `absolute`: s is 1, and each output direction moves by as
        much; `relative`: s is the norm of each row over their root mean square, so that each moves by the same share
        of what the weight puts there, and the step as a whole is as large.
        """
        norms = control.norm(dim=1)
        size = norms.square().mean().sqrt()
        return norms / size if self.header.scale == RELATIVE and size > 0 else torch.ones_like(norms)

    def check_base(self, base: Checkpoint) -> None:
        """Refuse a model that the panel was not made of. Raises RequestError with both hashes."""
        check_same_weights(self.folder, self.header.base, self.header.files, base, PANEL)

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        self.stored.close()

    def _read(self, name: str) -> torch.Tensor:
        tensor = self.stored.whole(name)
        if not torch.isfinite(tensor).all():
            raise self._unsound(name, "holds NaN or Inf")
        return tensor

    def _orthonormal(self, name: str) -> torch.Tensor:
        basis = self._read(name)
        if (basis.T @ basis - torch.eye(basis.shape[1])).abs().max() > ORTHONORMAL:
            raise self._unsound(name, "should have orthonormal columns")
        return basis

    def _unsound(self, name: str, why: str) -> CheckpointError:
        return CheckpointError(f"tensor {name!r} of {str(self.folder / PANEL_WEIGHTS)!r} {why}; {MAKE_AGAIN}")


def open_panel(folder: str | Path) -> Panel:
    """Open a panel; reads what it says and its header. Raises CheckpointError for what is no panel or a damaged one."""
    path = Path(folder)
    header = read_panel_header(path)
    stored = open_state(path / PANEL_WEIGHTS)
    _check_shapes(path, header, stored.tensors)
    return Panel(folder=path, header=header, stored=stored)


def tensors_of_panel(header: PanelHeader) -> list[str]:
    """The names of all tensors of a panel, in the order in which they lie."""
    names = []
    for group, weights in header.groups.items():
        names += [group + V, *([group + K] if header.texts is not None else [])]
        names += [weight + part for weight in weights for part in (U, C0)]
    return names


def _check_shapes(folder: Path, header: PanelHeader, tensors: Mapping[str, StoredTensor]) -> None:
    """Raises CheckpointError where the tensors are not those that panel.json speaks of."""
    path, wanted = folder / PANEL_WEIGHTS, set(tensors_of_panel(header))
    for name in sorted(wanted ^ tensors.keys()):
        kind = "lacks" if name in wanted else f"has, beyond what {PANEL} speaks of,"
        raise CheckpointError(f"{str(path)!r} {kind} {name!r}; {MAKE_AGAIN}")

    def check(name: str, shape: Sequence[int], words: str) -> None:
        found = tensors[name]
        if list(found.shape) != list(shape) or found.dtype != torch.float32:
            dtype = str(found.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{str(path)!r} has {name!r} as {dtype} {list(found.shape)} where {PANEL} asks for float32 {words}"
                f" = {list(shape)}; {MAKE_AGAIN}"
            )

    for group, weights in header.groups.items():
        width, rank = _matrix(tensors[group + V], path)
        check(group + V, (width, min(rank, header.rank, width)), "(in, rank)")
        if header.texts is not None:
            check(group + K, (rank, rank), "(rank, rank)")
        for name in weights:
            out, own = _matrix(tensors[name + U], path)[0], header.weights[name].rank
            check(name + U, (out, min(own, out, rank)), "(out, rank)")
            check(name + C0, (own, rank), "(rank, rank of the input)")


def _matrix(tensor: StoredTensor, path: Path) -> tuple[int, int]:
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise CheckpointError(
            f"{str(path)!r} has {tensor.name!r} of shape {list(tensor.shape)}, not a matrix; {MAKE_AGAIN}"
        )
    return tensor.shape[0], tensor.shape[1]


def write_panel(
    out: Path,
    shapes: Sequence[tuple[str, Shape]],
    fill: Callable[[Callable[[str, torch.Tensor], None]], PanelHeader],
    replaces: Contents = NOTHING,
    card: Callable[[PanelHeader], str] | None = None,
) -> PanelHeader:
    """Make a panel's folder, there whole or not at all; returns what it says. Raises RequestError for a full disk.

    shapes: of all tensors by name, in the order in which they will lie. fill: called with a function that writes a
    tensor, in any order, one in memory at a time; returns what panel.json says. card: makes README.md of that.
    """
    headers, slots, sizes = layout([(name, torch.float32, shape) for name, shape in shapes], 1 << 62, PANEL_WEIGHTS)
    check_space(out, sum(sizes.values()))
    lacking = dict(shapes)
    with new_folder(out, replaces) as folder:
        descriptor = os.open(folder / PANEL_WEIGHTS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            reserve(descriptor, sizes[PANEL_WEIGHTS])  # a full disk shows now, not at the end
            write_at(descriptor, memoryview(headers[PANEL_WEIGHTS]), 0)

            def put(name: str, tensor: torch.Tensor) -> None:
                assert tuple(tensor.shape) == lacking.pop(name), name
                values = tensor.detach().float().contiguous().flatten().view(torch.uint8).numpy()
                write_at(descriptor, memoryview(values), slots[name].offset)  # type: ignore[arg-type]

            header = fill(put)
        finally:
            os.close(descriptor)
        assert not lacking and sorted(tensors_of_panel(header)) == sorted(name for name, _ in shapes)
        write_json(folder / PANEL, header.to_json())
        if card is not None:
            (folder / CARD).write_text(card(header), "utf-8")
    return header
