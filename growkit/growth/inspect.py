"""What a checkpoint is, and how it could grow. Knows how to count and to probe the planner; ignorant of weights'
values.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from growkit.errors import GrowkitError
from growkit.families import Family, family_named
from growkit.families.lacking import layer_counts
from growkit.families.upcycling import ROWS
from growkit.growth.depth.by_layer import deepen_config
from growkit.growth.depth.stacks import stack_lines, stack_maps
from growkit.growth.plan import active, forward_flops
from growkit.growth.request import Depth, Recipe, upcycle_recipe
from growkit.growth.source_headers import Headers, architecture_of, check_config, check_tied_head, is_tied
from growkit.growth.sources import headers_of, open_source
from growkit.growth.upcycle.upcycle_plan import upcycle_plan
from growkit.growth.width.choose import choose_maps
from growkit.growth.width.sizes import FOLLOWERS, OPTIONS, Sizes, read_sizes, target_sizes
from growkit.maps.notation import ANY, GAIN, SHIFT

HEADS = {"head", "kv_head", "query_head", "key_head", "q_rank", "kv_rank"}


@dataclass(frozen=True)
class GrowthOption:
    """One way a checkpoint could grow: the option, whether the function stays, and why."""

    option: str
    exactness: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `growkit inspect` shows."""

    source: str  # as it was named
    family: str  # its model_type
    architecture: str  # the class
    sizes: Sizes  # by axis
    parameters: dict[str, int]  # by part of the model
    dtypes: dict[str, int]  # parameters by dtype
    bytes: int  # of all weights
    tied: bool  # whether head and embedding are one tensor
    active_parameters: int  # that one token passes
    flops_per_token: int  # forward, attention scores left out
    buffers: tuple[str, ...]  # tensors that transformers recomputes
    growths: tuple[GrowthOption, ...]  # what the planner says of typical requests

    def to_json(self) -> dict[str, Any]:
        """The inspection as plain data."""
        return {**asdict(self), "parameters_total": sum(self.parameters.values())}


def inspect(source: str | Path, family: str | None = None, source_heads: int | None = None) -> Inspection:
    """Family, sizes, parameters by part, dtypes, tying, FLOPs and the growths that would be exact, from headers alone.

    Raises CheckpointError or RequestError for what is no checkpoint growkit knows.
    """
    checkpoint = open_source(source, family, source_heads)
    try:
        headers = headers_of(checkpoint)
    finally:
        checkpoint.close()
    kind = family_named(headers.config.get("model_type"))
    check_config(kind, headers.config)
    sizes = read_sizes(kind, headers.config)
    parts: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for name, shape in headers.shapes.items():
        if not kind.is_buffer(name):
            parts[_part(kind, name, architecture_of(kind, headers))] += prod(shape)
            dtypes[str(headers.dtypes[name]).removeprefix("torch.")] += prod(shape)
    weights = {name: shape for name, shape in headers.shapes.items() if not kind.is_buffer(name)}
    return Inspection(
        source=headers.label,
        family=kind.model_type,
        architecture=architecture_of(kind, headers),
        sizes={axis: sizes[axis] for axis in (*OPTIONS, *FOLLOWERS, "expert", "vocab", "layer") if axis in sizes},
        parameters=dict(parts),
        dtypes=dict(dtypes),
        bytes=sum(prod(shape) * headers.dtypes[name].itemsize for name, shape in weights.items()),
        tied=is_tied(kind, headers),
        active_parameters=active(kind, weights, headers.config),
        flops_per_token=forward_flops(kind, weights, is_tied(kind, headers), headers.config),
        buffers=tuple(name for name in headers.shapes if kind.is_buffer(name)),
        growths=tuple(_growths(kind, headers, sizes)),
    )


def _part(family: Family, name: str, architecture: str) -> str:
    """Which part of a model a tensor belongs to, told by its axes."""
    stem = name[: -len(".bias")] + ".weight" if name.endswith(".bias") else name
    dimensions = family.axes_of(stem if family.knows(stem) else name, architecture)
    axes = {axis for dimension in dimensions for axis in dimension.axes}
    if axes == {ANY}:
        return "tower"
    if any(dimension.role in (GAIN, SHIFT) for dimension in dimensions):
        return "norms"
    if axes & HEADS:
        return "attention"
    if family.holds_experts(name):
        return "experts"
    if axes & {"expert", "gate"}:
        return "routers"
    if axes & {"shared", "shared_ffn"}:
        return "shared experts"
    if axes & {"ffn", "dense_ffn"} or (not axes & {"hidden"} and family.layer_of(name) is not None):
        return "feed-forward"
    return "embeddings" if family.stands_before(name) else "output heads"


def _growths(family: Family, headers: Headers, sizes: Sizes) -> list[GrowthOption]:
    """What the planner says of typical requests, one a line."""
    probes: list[tuple[str, str, int]] = [("hidden", "a multiple", 2 * sizes["hidden"])]
    between = next(
        (n for n in range(sizes["hidden"] + 1, 2 * sizes["hidden"]) if _possible(family, headers, "hidden", n)), None
    )
    if between is not None:
        probes.append(("hidden", "another width", between))
    if family.own_head_dim:
        group = sizes["head"] // sizes["kv_head"]
        more = next(
            (n for n in range(sizes["head"] + 1, 4 * sizes["head"] + 1) if _possible(family, headers, "head", n)), None
        )
        probes += [("head", "more heads", more)] if more else []
        probes += [("kv_head", "more kv heads", sizes["head"])] if group > 1 else []
    probes += [("head_dim", "a multiple", 2 * sizes["head_dim"]), ("head_dim", "another size", sizes["head_dim"] + 2)]
    probes.append(("ffn", "any size", sizes["ffn"] + 1))
    growths = [_probe(family, headers, sizes, *probe) for probe in probes]
    growths += [_depth_probe(family, headers, sizes["layer"], method) for method in ("stack", "identity")]
    return [*growths, _experts_probe(headers)] if any(row.source == family.model_type for row in ROWS) else growths


def _possible(family: Family, headers: Headers, axis: str, size: int) -> bool:
    try:
        target_sizes(family, headers.config, {axis: size})
    except GrowkitError:
        return False
    return True


def _probe(family: Family, headers: Headers, sizes: Sizes, axis: str, what: str, size: int) -> GrowthOption:
    option = f"{OPTIONS[axis]} {size} ({what})"
    try:
        new = target_sizes(family, headers.config, {axis: size})
        check_tied_head(family, headers, new["hidden"] != sizes["hidden"])
        _, lines, _, _ = choose_maps(family, headers.config, sizes, new, Recipe(sizes={axis: size}), headers.shapes)
    except GrowkitError as error:
        return GrowthOption(option, "refused", str(error).split("; nearest")[0])
    worst = max(lines, key=lambda line: (line.exactness, line.axis == axis))
    return GrowthOption(option, str(worst.exactness), worst.why)


def _depth_probe(family: Family, headers: Headers, layers: int, method: str) -> GrowthOption:
    depth = Depth(layers=2 * layers, method=method)
    option = f"--layers {2 * layers} ({method})"
    try:
        counts = layer_counts(family, headers.config, layers)
        deeper = stack_maps([counts], depth)
        deepen_config(family, dict(headers.config), [headers.config], [layers], deeper)
    except GrowkitError as error:
        return GrowthOption(option, "refused", str(error))
    line = stack_lines(deeper, [counts], family.norms.after, family.fixed_layers(headers.config))[0]
    return GrowthOption(option, str(line.exactness), line.why)


def _experts_probe(headers: Headers) -> GrowthOption:
    option = "--experts 8 (upcycle)"
    try:
        line = upcycle_plan([headers], upcycle_recipe()).axes[0]
    except GrowkitError as error:
        return GrowthOption(option, "refused", str(error))
    return GrowthOption(option, str(line.exactness), line.why)
