"""From dense models to one mixture of experts: request + headers -> plan, and what the plan says of it. Knows which
sources fit; touches no bytes.
"""

from collections.abc import Sequence
from dataclasses import replace

from growkit.errors import RequestError
from growkit.families.upcycling import upcycling_of
from growkit.growth.kin import check_kin, joined
from growkit.growth.plan import AxisPlan, Plan
from growkit.growth.request import Experts, Recipe
from growkit.growth.rules import Growth, check_shape
from growkit.growth.source_headers import (
    Headers,
    architecture_of,
    check_tensors,
    is_tied,
    member_of,
    one_family,
    state_dtype,
)
from growkit.growth.upcycle.experts import ROUTER_STD, ROUTERS, diversity_of, sparse_layers, widths_of
from growkit.growth.upcycle.mixture import Mixture
from growkit.growth.upcycle.sparse_config import sparse_config
from growkit.growth.width.sized_config import odd_width_notes
from growkit.growth.width.sizes import OPTIONS, read_sizes
from growkit.maps.axis import identity
from growkit.maps.exactness import Exactness
from growkit.units import size

ADAM_BYTES = 16  # a parameter in training: weight, gradient and two moments in float32


def upcycle_plan(sources: Sequence[Headers], recipe: Recipe) -> Plan:
    """Plan a mixture of experts made of one dense model, or of several fine-tuned from one.

    Raises RequestError for what cannot be asked or for sources that do not fit, CheckpointError for a checkpoint that
    is not understood.
    """
    experts = recipe.experts
    assert experts is not None, "the recipe asks for experts"
    # what cannot become a mixture at all is said before what does not fit together
    row, *_ = [upcycling_of(source.label, str(source.config.get("model_type"))) for source in sources]
    family = one_family(sources, "become the experts of one")
    sizes = [read_sizes(family, source.config) for source in sources]
    kin = check_kin(family, sources, joined(("vocab", *OPTIONS, "layer")))
    _check_router(experts, len(sources))
    widths = widths_of(experts, row, sizes[0])
    copies = experts.count // widths.slices
    if copies % len(sources):
        raise RequestError(
            f"{copies} copies of a feed-forward layer cannot be dealt out evenly to {len(sources)} models; let --experts be a"
            f" multiple of {len(sources) * widths.slices}"
        )
    diversity = kind, share = diversity_of(experts.diversity)
    if kind == "drop" and int(share * widths.slice) == 0:
        raise RequestError(f"--diversity {experts.diversity} draws none of the {widths.slice} units of an expert anew")
    layers, step = sparse_layers(experts.layers, sizes[0]["layer"], row)
    mixture = Mixture(
        sources=sources,
        row=row,
        widths=widths,
        layers=frozenset(layers),
        copies=copies,
        diversity=diversity,
        seed=recipe.seed,
        dtype=recipe.dtype,
    )
    growths = [
        Growth(
            family=family,
            maps=mixture.maps(sizes[0]),
            tied=is_tied(family, source),
            noise=0.0,
            architecture=architecture_of(family, source),
        )
        for source in sources
    ]
    for source, growth in zip(sources, growths):
        check_tensors(growth, source, sizes[0]["layer"])
        for name, shape in source.shapes.items():
            if not family.is_buffer(name):
                check_shape(name, shape, growth)
    config = sparse_config(sources[0], row, sizes[0], experts, widths, layers, step)
    state_dtype(config, sources, recipe.dtype)
    members = tuple(member_of(source, growth) for source, growth in zip(sources, growths))
    kept = identity(sizes[0]["layer"])
    plan = Plan(
        recipe=recipe,
        members=members,
        layers=kept,
        axes=tuple(_lines(mixture, kept.new)),
        tensors=mixture.plans(),
        config=config,
    )
    stated = dict.fromkeys([*(note for source in sources for note in source.notes), *kin])
    return replace(plan, notes=(*stated, *_notes(mixture, plan, experts)))


def _check_router(experts: Experts, sources: int) -> None:
    if experts.router not in ROUTERS:
        raise RequestError(f"--router {experts.router!r} is not one of {', '.join(ROUTERS)}")
    if experts.router == "clusters" and experts.text is None:
        raise RequestError(
            "--router clusters needs a text whose hidden states it finds the clusters of: give --text FILE"
        )
    if experts.router != "clusters" and experts.text is not None:
        raise RequestError(f"--text is for --router clusters, not for --router {experts.router}")
    if experts.router == "clusters" and sources > 1:
        raise RequestError("--router clusters takes one source: clusters of a text do not tell models apart")


def _lines(mixture: Mixture, layers: int) -> list[AxisPlan]:
    """What the plan says of experts, of their width and of the layers that have them."""
    w, (kind, share), models = mixture.widths, mixture.diversity, len(mixture.sources)
    how = f"{mixture.copies} copies" + (f" in {w.slices} slices each" if w.slices > 1 else "")
    exactness, why = Exactness.EXACT, "the experts a token takes are equal, and their gates sum to 1"
    if w.slices > 1:
        why = "the router's rows are equal for all slices of a copy, so a token takes whole copies, and gates sum to 1"
    if models > 1:
        how += f" of {models} models in turn"
        if not mixture.identical:
            exactness, why = (
                Exactness.APPROXIMATE,
                "the experts are different models', and all else is their mean, so the result is none of them",
            )
    if kind != "none":
        part = "noise of" if kind == "noise" else "drawn anew:"
        what = "of each tensor's deviation" if kind == "noise" else "of the units of each expert"
        how += f", {part} {share:g} {what}"
        exactness, why = Exactness.APPROXIMATE, "the experts are parted from one another, by design"
    lines = [AxisPlan(axis="expert", old=models, new=w.slices * mixture.copies, how=how, exactness=exactness, why=why)]
    if w.slice != w.dense:
        factor = f"; the linear tensors carry {w.slices}" if w.slices > 1 else ""
        lines.append(
            AxisPlan(
                axis="ffn",
                old=w.dense,
                new=w.slice,
                how="slices" if w.slices > 1 else "the other units",
                exactness=Exactness.EXACT,
                why=f"a sum over units in parts{factor}",
            )
        )
    if w.shared:
        why = "its gate starts at sigmoid(0) = 1/2, and its linear tensors carry 2"
        lines.append(
            AxisPlan(
                axis="shared_ffn", old=w.dense, new=w.shared, how="the first units", exactness=Exactness.EXACT, why=why
            )
        )
    if len(mixture.layers) < layers:
        numbers = " ".join(str(layer + 1) for layer in sorted(mixture.layers))
        why = "the others keep their feed-forward layer"
        lines.append(
            AxisPlan(
                axis="layer", old=layers, new=layers, how=f"experts in {numbers}", exactness=Exactness.EXACT, why=why
            )
        )
    return lines


def _notes(mixture: Mixture, plan: Plan, wanted: Experts) -> list[str]:
    """What else a person should know before making it."""
    total = plan.parameters()[1]
    notes = [
        "routers are the centres of clusters of the text's hidden states, so that tokens that are alike take one expert"
        if wanted.router == "clusters"
        else f"routers are drawn from N(0, {ROUTER_STD}), so that tokens spread over the experts and these part in training",
        f"training all of it with AdamW in float32 takes about {size(total * ADAM_BYTES)}, {ADAM_BYTES} bytes a"
        " parameter, for the experts that rest as for those at work",
    ]
    if mixture.widths.shared and not wanted.shared:
        notes.append(
            f"a {mixture.row.target} always has a shared expert: it takes the first {mixture.widths.shared} of"
            f" {mixture.widths.dense} units of each feed-forward layer"
        )
    if mixture.widths.slices > 1:
        notes.append(
            "in bfloat16 two copies may tie (0.05 to 0.4 % of tokens where it was measured), and such a token takes slices of both: keep"
            " the router in float32"
        )
    notes += [mixture.row.elsewhere] if mixture.row.elsewhere else []
    notes += odd_width_notes(mixture.sparse, plan.config, max(tensor.dtype.itemsize for tensor in plan.tensors))
    if wanted.top_k == 1:
        notes.append("the gate of a single expert is always 1, so the router learns nothing from the loss of the text")
    return notes
