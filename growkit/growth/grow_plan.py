"""From a request and the headers of its sources to a plan: width first, then depth; one source or several. Knows how
the parts meet; ignorant of bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

from growkit.errors import RequestError
from growkit.families import Family
from growkit.families.lacking import layer_counts
from growkit.families.stock_config import stock_value
from growkit.growth.depth.averages import averaged
from growkit.growth.depth.by_layer import deepen_config
from growkit.growth.depth.stacks import stack_lines, stack_maps
from growkit.growth.kin import check_kin, joined
from growkit.growth.plan import AxisPlan, Plan, TensorPlan
from growkit.growth.request import AUTO, DIRECT_COPY, SHRINK_PERTURB, Recipe
from growkit.growth.rules import Growth
from growkit.growth.source_headers import (
    FLOATS,
    Headers,
    architecture_of,
    check_tensors,
    check_tied_head,
    is_tied,
    member_of,
    one_family,
    state_dtype,
)
from growkit.growth.studied import as_studied
from growkit.growth.tensors import TensorPlans
from growkit.growth.width.choose import choose_maps
from growkit.growth.width.direct_copy import check_direct_copy
from growkit.growth.width.more_experts import MoreExperts
from growkit.growth.width.rotary import write_rotary
from growkit.growth.width.side_by_side import MODES, added_sizes, side_by_side_lines, side_by_side_maps
from growkit.growth.width.sized_config import odd_width_notes, target_config
from growkit.growth.width.sizes import (
    FOLLOWERS,
    OPTIONS,
    Sizes,
    read_sizes,
    target_sizes,
)
from growkit.growth.width.uneven import BY_WIDTH, noise_of
from growkit.maps.axis import AxisMap
from growkit.maps.exactness import Exactness
from growkit.maps.notation import KEPT

METHODS, MAPPINGS = ("fpi", "aki", SHRINK_PERTURB, DIRECT_COPY, AUTO), ("cyclic", "random")
ROUTERS_WOULD = {SHRINK_PERTURB: "part", DIRECT_COPY: "send tokens by chance"}  # of a mixture, by width methods


def grow_plan(sources: Sequence[Headers], recipe: Recipe) -> Plan:
    """Plan a growth: of one source in width, in depth or in both, or of several into one (recipe.mode, or stacked).

    Raises RequestError for what cannot be asked or for sources that do not fit, CheckpointError for a checkpoint that
    is not understood.
    """
    _check_recipe(recipe, len(sources))
    family = one_family(sources, "become one")
    recipe, chosen = as_studied(recipe, family.is_moe)
    sizes = [read_sizes(family, source.config) for source in sources]
    if (family.reads_pixels or family.beside) and recipe.mode is not None:
        raise RequestError(
            f"{sources[0].label!r} is a {family.model_type}, which reads images; growkit fuses language models, and widens,"
            " stacks and merges this one"
        )
    if family.is_moe and recipe.method in ROUTERS_WOULD:
        raise RequestError(
            f"--method {recipe.method} is for dense models; {sources[0].label!r} is a mixture, whose routers would"
            f" {ROUTERS_WOULD[recipe.method]}"
        )
    if recipe.method == DIRECT_COPY:
        check_direct_copy(recipe)
    if family.is_moe and recipe.mode is not None:
        raise RequestError(
            f"{sources[0].label!r} is a mixture of experts ({family.model_type}), whose members would need one router"
            " for all; growkit fuses dense models, and stacks mixtures"
        )
    experts = ("expert", "ffn", *FOLLOWERS, *KEPT) if family.is_moe else ()
    own_width = any(size.get("embedding", size["hidden"]) != size["hidden"] for size in sizes)
    alike = (
        "vocab",
        "head_dim",
        *experts,
        *(("embedding",) if own_width and recipe.mode != "side-by-side" else ()),
        *({None: (), "side-by-side": ("layer",)}.get(recipe.mode, (*OPTIONS, "layer"))),
    )
    stated = check_kin(family, sources, joined(alike))
    growths, config, lines, notes = _widths(family, sources, sizes, recipe)
    depths = [growth.depths for growth in growths]
    # fused models share their layers; stacked ones have them one after another
    layered = depths[:1] if recipe.mode else depths
    stacks = stack_maps(layered, recipe.depth)
    first, layers = next(iter(stacks.items()))
    if recipe.depth is not None:
        lines += stack_lines(stacks, layered, family.norms.after, family.fixed_layers(sources[0].config))
        counts = [count[first] for count in layered]
        notes += deepen_config(family, config, [source.config for source in sources], counts, stacks)

    def planned(layers: AxisMap) -> tuple[TensorPlan, ...]:
        own = {**stacks, first: layers}
        return TensorPlans(sources=sources, growths=growths, layers=own, depths=layered, recipe=recipe).plans()

    tensors = averaged(family, layers, planned)
    state_dtype(config, sources, recipe.dtype)
    members = tuple(member_of(source, growth) for source, growth in zip(sources, growths))
    stated = [note for source in sources for note in source.notes] + stated
    notes += odd_width_notes(family, config, max(tensor.dtype.itemsize for tensor in tensors))
    if recipe.mode and config.get("final_logit_softcapping", family.defaults.get("final_logit_softcapping")):
        notes.append("logits are capped after they are averaged, not before")
    if family.pairs:
        notes.append("of its two towers the one that reads texts grows; the one that reads images stays as it is")
    notes = [*chosen, *dict.fromkeys(stated), *_split_notes(recipe, tensors), *notes, *_tie_notes(sources)]
    return Plan(
        recipe=recipe,
        members=members,
        layers=layers,
        axes=tuple(lines),
        tensors=tensors,
        config=config,
        notes=tuple(notes),
        stacks=stacks,
    )


def _widths(
    family: Family, sources: Sequence[Headers], sizes: Sequence[Sizes], recipe: Recipe
) -> tuple[list[Growth], dict[str, Any], list[AxisPlan], list[str]]:
    """How each source's axes grow, the config that comes of it, and what a plan says of it."""
    growths, configs, lines, routed = [], [], [], MoreExperts()
    identical = len({source.origin or source.label for source in sources}) == 1
    if recipe.mode == "side-by-side":
        new = added_sizes(family, sources, sizes)
        all_maps = [side_by_side_maps(sizes, number) for number in range(len(sources))]
        configs = [target_config(family, sources[0].config, new)]
        lines = [side_by_side_lines(family, sizes, identical)]
    else:
        request = _request(family, sizes, recipe)
        own = recipe.mode is None or (recipe.mode == "fpi" and identical)
        chooser = recipe if own else replace(recipe, method="aki")  # the maps AKI has: copies and no fillers
        all_maps = []
        for source, size in zip(sources, sizes):
            new = target_sizes(family, source.config, request)
            maps, line, rotary, routed = choose_maps(family, source.config, size, new, chooser, source.shapes)
            all_maps.append(maps)
            lines.append(line)
            configs.append(target_config(family, source.config, new))
            write_rotary(family, configs[-1], rotary)
            configs[-1] |= routed.settings
    share = 1.0 / len(sources) if recipe.mode == "side-by-side" else 1.0
    for source, maps, size in zip(sources, all_maps, sizes):
        check_tied_head(family, source, not maps["hidden"].is_identity)
        tied, architecture = is_tied(family, source), architecture_of(family, source)
        growths.append(
            Growth(
                family=family,
                maps=maps,
                tied=tied,
                noise=recipe.noise,
                architecture=architecture,
                share=share,
                head_scale=_head_scale(family, source.config, architecture, maps["hidden"]),
                embedding_scale=_embedding_scale(family, source.config, maps["hidden"]),
                depths=layer_counts(family, source.config, size["layer"]),
                sum_of_copies=routed.all_copies,
            )
        )
        check_tensors(growths[-1], source, size["layer"])
    if any(source.head_is_copy is False for source in sources):
        if family.head_scaled:  # which its class concludes from the ties
            configs[0][family.head_scaled] = stock_value(family.model_type, sources[0].config, family.head_scaled)
        configs[0]["tie_word_embeddings"] = False  # two different tensors cannot be tied; transformers would not either
    if recipe.mode in METHODS:
        lines[0] = [_fused_line(line, recipe, identical) for line in lines[0]]
    widened = [
        f"{source.label!r} is widened first: "
        + ", ".join(f"{a.axis} {a.old} -> {a.new}" for a in line if a.old != a.new)
        for source, line in zip(sources[1:], lines[1:])
        if recipe.mode is None and any(a.old != a.new for a in line)
    ]
    return growths, configs[0], lines[0], [*widened, *([routed.note] if routed.note else [])]


def _head_scale(family: Family, config: Mapping[str, Any], architecture: str, hidden: AxisMap) -> float:
    """What undoes that a model divides the stream before its head by sqrt(hidden), where it does."""
    asked = family.head_scaled and family.has_language_head(architecture) and hidden.old != hidden.new
    scaled = bool(asked) and bool(stock_value(family.model_type, config, family.head_scaled))
    return sqrt(hidden.new / hidden.old) if scaled else 1.0


def _embedding_scale(family: Family, config: Mapping[str, Any], hidden: AxisMap) -> float:
    """What embeddings are multiplied by so that the model's own sqrt(hidden) comes out as before, where it has one."""
    return sqrt(hidden.old / hidden.new) if hidden.old != hidden.new and family.scales_embedding(config) else 1.0


def _request(family: Family, sizes: Sequence[Sizes], recipe: Recipe) -> Mapping[str, int | None]:
    """The sizes to widen each source to."""
    if recipe.mode and not any(recipe.sizes.values()):
        return {"hidden": sum(size["hidden"] for size in sizes)}
    axes = [axis for axis in OPTIONS if axis in family.sizes]
    if any(size[axis] != sizes[0][axis] for size in sizes for axis in axes):
        return {axis: max(size[axis] for size in sizes) for axis in axes}
    return recipe.sizes


def _fused_line(line: AxisPlan, recipe: Recipe, identical: bool) -> AxisPlan:
    if line.old == line.new:
        return line
    if identical and recipe.mode == "fpi":
        return line  # the members are one model: this is its FPI
    above = ", from the layer above" if recipe.mode == "aki" else ""
    why = f"first copies are the first member's, later copies the others'{above}, by design"
    return replace(line, exactness=Exactness.APPROXIMATE, why=why)


def _check_recipe(recipe: Recipe, sources: int) -> None:
    for option, value, known in (("method", recipe.method, METHODS), ("mapping", recipe.mapping, MAPPINGS)):
        if value not in known:
            raise RequestError(f"--{option} {value!r} is not one of {', '.join(known)}")
    noise_of(recipe.noise)
    if recipe.dtype is not None and recipe.dtype not in FLOATS:
        raise RequestError(f"--dtype should be one of {', '.join(str(d).removeprefix('torch.') for d in FLOATS)}")
    if recipe.mode is None:
        if recipe.depth is None and not recipe.widens:
            options = ", ".join(OPTIONS.values())
            raise RequestError(
                f"nothing to grow: give at least one of {options} (with growkit grow also --experts, --layers, --like)"
            )
        return
    if recipe.method != "fpi":
        raise RequestError(f"method {recipe.method!r} is for one source; fuse several with --mode {recipe.method}")
    if recipe.mode == "side-by-side" and (recipe.noise or recipe.mapping != "cyclic"):
        raise RequestError("side by side nothing is copied: --noise and --mapping are for --mode fpi or aki")
    if recipe.mode not in MODES:
        raise RequestError(f"--mode {recipe.mode!r} is not one of {', '.join(MODES)}")
    if sources < 2:
        raise RequestError("fuse makes one model of several: name two sources or more")
    if recipe.mode == "side-by-side" and any(size is not None for size in recipe.sizes.values()):
        raise RequestError(
            "side by side, sizes are the members' added up; leave --hidden and the like out, or --mode fpi"
        )


def _split_notes(recipe: Recipe, tensors: Sequence[TensorPlan]) -> list[str]:
    split = [{part.rule.noise for part in tensor.parts if part.rule.splits or part.rule.among} for tensor in tensors]
    splits = sum(map(bool, split))
    if splits:
        sizes = sorted(set().union(*split))
        by = " to ".join(f"{size:.3g}" for size in dict.fromkeys((sizes[0], sizes[-1])))
        width = ", by the width" if recipe.noise == BY_WIDTH else ""
        return [
            f"read copies are split unevenly by {by}{width} in {splits} tensors, so that they part in training;"
            " their sums are unchanged"
        ]
    if recipe.mode == "side-by-side":
        return ["the blocks between members start at zero and learn: nothing keeps the members apart in training"]
    if recipe.method == "fpi" and recipe.noise == 0 and recipe.mode is None and recipe.widens and recipe.learn is None:
        return ["copies are equal and receive equal gradients: under deterministic training they stay equal for ever"]
    return []


def _tie_notes(sources: Sequence[Headers]) -> list[str]:
    if not any(s.head_is_copy is False and s.config.get("tie_word_embeddings") for s in sources):
        return []
    return ["config.json ties the head, but another head is stored: treated as untied, as transformers does"]
