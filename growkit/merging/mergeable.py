"""Whether models can be merged: each sound by itself, and all fine-tuned from one. Knows what subtracting and adding
weights asks of them; ignorant of values, of vocabularies and of methods.
"""

from collections.abc import Sequence
from dataclasses import replace

from growkit.errors import RequestError
from growkit.families import Family
from growkit.growth.kin import Kinship, check_kin, names_of
from growkit.growth.rules import Growth, check_shape, unchanged
from growkit.growth.source_headers import Headers, architecture_of, check_tensors, is_tied, one_family
from growkit.growth.width.sizes import FOLLOWERS, OPTIONS, read_sizes
from growkit.maps.notation import KEPT, by_token

BY_BODY = "with --body (body=True) the body that all share is merged, and the base's head stays"
MERGED = Kinship(
    same=(*OPTIONS, *FOLLOWERS, *KEPT, "expert", "layer"),
    labels=False,
    names=names_of,
    one_class=f"can be merged whole; {BY_BODY}",
    one_tensor=f"save both from one class first; {BY_BODY}",
    one_size=lambda _: "; only models fine-tuned from one base, of the same sizes, can be merged",
    alike="; only models whose layers see alike can be merged",
)
BODIES = replace(MERGED, any_head=True)


def check_each(models: Sequence[Headers]) -> Family:
    """The family of models that are to be merged, each of which is sound.

    Raises RequestError where they have several, CheckpointError for one that lacks tensors or has them of other shapes
    than its config says.
    """
    family = one_family(models, "can be merged")
    for model in models:
        sizes = read_sizes(family, model.config)
        maps = unchanged(sizes)
        growth = Growth(
            family=family,
            maps=maps,
            tied=is_tied(family, model),
            noise=0.0,
            architecture=architecture_of(family, model),
        )
        check_tensors(growth, model, sizes["layer"])
        for name, shape in model.shapes.items():
            if not family.is_buffer(name):
                check_shape(name, shape, growth)
    return family


def check_mergeable(family: Family, first: Headers, other: Headers, body: bool) -> list[str]:
    """Refuse a model that is no kin of the first, or whose tensors have other shapes; vocabularies may differ.

    body: whether classes may differ, since their base models alone are merged, and no other tensors are there. Returns
    notes on settings that differ and need not agree.
    """
    notes = check_kin(family, (first, other), BODIES if body else MERGED)
    pair, theirs = f"{first.label!r} and {other.label!r}", names_of(family, other)
    for stem, name in names_of(family, first).items():
        rows = by_token(family.axes_of(name, architecture_of(family, first)))
        shapes = first.shapes[name], other.shapes[theirs[stem]]
        if shapes[0][rows:] != shapes[1][rows:]:
            cure = "" if body else f"; {BY_BODY}"
            raise RequestError(f"{pair} have tensor {name!r} as {list(shapes[0])} and {list(shapes[1])}{cure}")
    return notes
