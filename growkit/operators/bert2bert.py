"""bert2BERT in its paper's words (arXiv 2110.07143), on plain tensors and index tensors. Knows what the paper calls the
maps, the one rule and the layer orders of growkit; ignorant of families, files and configs.

    g_in = growkit.mapping(512, 768, "random")      which old index each new one copies
    wide = growkit.fpi(weight, g_in, g_out)         function-preserving initialisation
    wide = growkit.aki(weight, upper, g_in, g_out)  advanced knowledge initialisation
    deep = growkit.stack_layers(state, growkit.stack_order(6, 12))

The paper writes x W, with W of shape (in, out); here a weight is (out, in), as nn.Linear has it, so that the paper's
rows are columns and its columns rows. It counts from 1, here from 0. Formulas are cited by the section that has them.
"""

import re
from collections.abc import Mapping, Sequence
from operator import index

import numpy as np
import torch

from growkit.maps.axis import AxisMap, copies, cyclic_index, identity, random_index
from growkit.maps.layer_order import ORDERS
from growkit.maps.notation import READ, WRITE
from growkit.operators.tensor import expand

Index = torch.Tensor | Sequence[int]
_PLACE = re.compile(r"(?:(?P<layers>.*?)\.)??(?P<number>\d+)(?:\.(?P<rest>.*))?")


def mapping(old: int, new: int, how: str = "cyclic", seed: int = 0) -> torch.Tensor:
    """Neuron duplication: which old index each new one is a copy of, a mapping function g as int64 (new,).

        g(i) = i                        for i < old
        g(i) = i mod old                else, how="cyclic": every index has as many copies as the next, or one fewer
        g(i) = f({0, ..., old - 1})     else, how="random": the paper's, drawn uniformly with replacement by `seed`

    From "Function preserving initialization". Raises ValueError for sizes that do not grow and for another `how`.
    """
    if not 1 <= old <= new:
        raise ValueError(f"a mapping makes an axis larger: from {old} to {new} is no growth")
    if how == "cyclic":
        return torch.from_numpy(cyclic_index(old, new))
    if how == "random":
        return torch.from_numpy(random_index(old, new, np.random.Generator(np.random.PCG64(seed))))
    raise ValueError(f"how {how!r} is not one of cyclic, random")


def fpi(
    weight: torch.Tensor, g_in: Index | None, g_out: Index | None, *, noise: float = 0.0, seed: int = 0
) -> torch.Tensor:
    """Function-preserving initialisation: a weight (out, in) becomes one of (len(g_out), len(g_in)) in two steps.

        U~[:, i] = W[:, g_in(i)] / C(g_in(i))     in-dimension; C(k): how many i have g_in(i) = k, the first counted too
        U[o, :]  = U~[g_out(o), :]                out-dimension: copied as it is

    From "Function preserving initialization" and figure 3; it is `expand` with maps of `growkit.maps.copies`. A layer
    and the one that reads it compute what they did when the g_out of the first is the g_in of the second.

    None for a dimension that stays. A vector has one dimension: a bias is fpi(bias, None, g_out) and is never divided,
    a vector that is summed over fpi(vector, g_in, None). An embedding (vocab, hidden) writes its columns:
    fpi(embedding.T, None, g_out).T. noise: from 0 to below 1, how unevenly what copies read is split by `seed`, so that
    they part when trained; their sum, and so the function, stays.

    Raises ValueError for a tensor that is neither, for an index that the dimension does not have, and for a mapping
    that leaves one out: what it carried would be lost.
    """
    return expand(weight, _dimensions(weight, g_in, g_out), noise, seed)


def aki(
    weight: torch.Tensor,
    upper: torch.Tensor | None,
    g_in: Index | None,
    g_out: Index | None,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """Advanced knowledge initialisation: FPI whose new units are the layer above's ("upper-layer sampling").

        U[o, :] = U~[o, :]                  for the first copy of each old index: its own layer's, W
        U[o, :] = U~upper[g_out(o), :]      for every later copy: the layer above's; U~ and U~upper as in `fpi`

    From "Advanced knowledge initialization". With g_out of `mapping` the first copies are the first `out` rows, as the
    paper has it; a mapping that grows whole groups of heads has them elsewhere. Columns are of one layer throughout,
    and the result does not keep the function: copies no longer hold what those who read them were divided for.

    upper: the same tensor one layer up, of the same shape; None for the last layer, which has none above it and grows
    by FPI. Vectors, noise, seed and errors are those of `fpi`; ValueError too where the two shapes differ.
    """
    if upper is not None and upper.shape != weight.shape:
        raise ValueError(f"the layer above has shape {list(upper.shape)}, this one {list(weight.shape)}")
    return expand(weight, _dimensions(weight, g_in, g_out), noise, seed, upper)


def stack_order(old: int, new: int, how: str = "stack") -> list[int]:
    """Which of `old` layers each of `new` is, from 0: stack_order(3, 8) == [0, 1, 2, 0, 1, 2, 1, 2].

    how: "stack" (the paper's algorithm 1: whole copies, then the top layers), "interleave", "top", "middle" or "solar"
    (see growkit.maps.layer_order). Layers that start as the identity are `growkit.stack`'s, which knows what to silence
    in each family. Raises ValueError for sizes that do not grow, or that the method cannot make.
    """
    if how not in ORDERS:
        raise ValueError(f"how {how!r} is not one of {', '.join(ORDERS)}")
    if not 1 <= old <= new:
        raise ValueError(f"an order makes a model deeper: from {old} to {new} layers is no growth")
    return ORDERS[how](old, new)


def stack_layers(state: Mapping[str, torch.Tensor], order: Index, layers: str | None = None) -> dict[str, torch.Tensor]:
    """Depth growth of a plain state dict: layer number n of the new one is layer order[n] of the old, all else stays.

    A tensor's layer is the first number between dots in its name: 3 in "model.layers.3.mlp.experts.0.w1.weight",
    "h.3.ln_1.bias" and "encoder.layer.3.output.dense.weight". layers: what stands before it, such as "model.layers";
    needed only where names count in several lists. The first copy of a layer is the old tensors themselves, later ones
    are clones, so that no two names share memory. A config must get its new number of layers from elsewhere
    (`growkit.stack` carries all it says).

    From algorithm 1, whose order is `stack_order`. Raises ValueError for names without a layer, for several lists, and
    for an order that is empty or names a layer that is not there.
    """
    places = {
        name: (match["layers"] or "", int(match["number"]), match["rest"] or "")
        for name in state
        if (match := _PLACE.fullmatch(name))
    }
    lists = sorted({place[0] for place in places.values()})
    if layers is None and len(lists) != 1:
        problem = (
            f"names count in {', '.join(map(repr, lists))}; pick one" if lists else "no name has a number between dots"
        )
        raise ValueError(f"{problem}: layers='model.layers' would be those of model.layers.0, model.layers.1, ...")
    chosen = lists[0] if layers is None else layers
    old: dict[int, dict[str, torch.Tensor]] = {}
    for name, (owner, number, rest) in places.items():
        if owner == chosen:
            old.setdefault(number, {})[rest] = state[name]
    if not old or sorted(old) != list(range(len(old))):
        raise ValueError(f"the layers of {chosen!r} should count from 0 without a gap, but are {sorted(old)}")
    wanted = [index(number) for number in order]
    wrong = [number for number in wanted if number not in old]
    if wrong or not wanted:
        named = f"names layer {wrong[0]}" if wrong else "is empty"
        raise ValueError(f"the order {named}; the layers of {chosen!r} are 0 to {len(old) - 1}")
    new: dict[str, torch.Tensor] = {}
    for target, number in enumerate(wanted):
        again = number in wanted[:target]
        for rest, tensor in old[number].items():
            new[".".join(filter(None, (chosen, str(target), rest)))] = tensor.clone() if again else tensor
    grown: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name not in places or places[name][0] != chosen:
            grown[name] = tensor
        else:
            grown |= new  # all layers stand where the first tensor of a layer does
            new = {}
    return grown


def _dimensions(weight: torch.Tensor, g_in: Index | None, g_out: Index | None) -> list[tuple[AxisMap, str]]:
    """What `expand` does to each dimension."""
    if weight.dim() not in (1, 2) or not weight.is_floating_point():
        kind = f"{weight.dim()} dimensions, {str(weight.dtype).removeprefix('torch.')}"
        raise ValueError(f"a weight is a matrix or a vector of floating-point numbers, not a tensor of {kind}")
    if weight.dim() == 2:
        return [(_copies(g_out, weight.shape[0], "g_out"), WRITE), (_copies(g_in, weight.shape[1], "g_in"), READ)]
    if g_in is None:
        return [(_copies(g_out, len(weight), "g_out"), WRITE)]
    if g_out is None:
        return [(_copies(g_in, len(weight), "g_in"), READ)]
    raise ValueError("a vector has one dimension: give g_out for what a layer writes, such as a bias, and g_in None")


def _copies(g: Index | None, old: int, name: str) -> AxisMap:
    """The map of a mapping function. Raises ValueError for what is none of an axis of this size."""
    if g is None:
        return identity(old)
    sources = torch.as_tensor(g).cpu().numpy()
    if sources.ndim != 1 or not np.issubdtype(sources.dtype, np.integer):
        raise ValueError(f"{name} should be a vector of whole numbers, one for each new index")
    outside = sources[(sources < 0) | (sources >= old)]
    if len(outside):
        raise ValueError(f"{name} names index {outside[0]}, but the dimension has {old}")
    missing = np.setdiff1d(np.arange(old), sources)
    if len(missing):
        raise ValueError(f"{name} leaves out index {missing[0]}, and what it carries would be lost")
    return copies(old, sources)
