"""Which starts a study of all of them found best, for those who leave the choice to growkit (`auto`). Knows rows of
that study (examples/benchmarks/compute_saved) as data; ignorant of plans and of checkpoints.
"""

from dataclasses import dataclass, replace

from growkit.errors import RequestError
from growkit.growth.request import AUTO, Recipe, usual_noise


@dataclass(frozen=True, kw_only=True)
class StudiedStart:
    """A start that the study knows. row: its name there. width, depth: the methods; None: it does not grow that.
    below: nats below a model from scratch after as many tokens, the mean of seeds."""

    row: str
    width: str | None = None
    depth: str | None = None
    below: float


# the best of what every dense model can begin with, by (in width, in depth)
BEST = {
    (True, False): StudiedStart(row="direct copy", width="direct-copy", below=0.378),
    (False, True): StudiedStart(row="stack, carried state", depth="stack", below=0.377),
    (True, True): StudiedStart(row="direct copy + stack", width="direct-copy", depth="stack", below=0.372),
}
# of what a mixture can, whose routers would part under others
OF_MIXTURES = {
    **BEST,
    (True, False): StudiedStart(row="AKI", width="aki", below=0.309),
    (True, True): StudiedStart(row="AKI + stack", width="aki", depth="stack", below=0.302),
}
OF_DENSE = "the study was of dense models"


def as_studied(recipe: Recipe, mixture: bool) -> tuple[Recipe, list[str]]:
    """(the recipe with every `auto` made a method, what a plan says of it); as it is where nothing is left open.

    Raises RequestError where there is nothing to choose.
    """
    depth, method = recipe.depth, recipe.method
    if AUTO not in (method, depth and depth.method):
        return recipe, []
    if method == AUTO and not recipe.widens:
        raise RequestError(
            f"--method {AUTO} chooses how to widen, and no size is asked for; --depth {AUTO} chooses how to deepen"
        )
    best = (OF_MIXTURES if mixture else BEST)[recipe.widens, depth is not None]
    took = []
    if method == AUTO and best.width is not None:
        recipe = replace(recipe, method=best.width, noise=usual_noise(best.width))
        took.append(best.width)
    if depth is not None and depth.method == AUTO and best.depth is not None:
        recipe = replace(recipe, depth=replace(depth, method=best.depth))
        took.append(best.depth)
    note = f"auto took {' and '.join(took)}, by the row {best.row!r} of what growing saves (docs/benchmarks.md)"
    if best.width in (None, recipe.method) and (recipe.depth is None or recipe.depth.method == best.depth):
        note += f": {best.below:.2f} nats below scratch there, after as many tokens"
    else:
        note += ", which grows otherwise in the other direction"
    return recipe, [note + (f"; {OF_DENSE}" if mixture else "")]
