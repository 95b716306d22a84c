"""Which starts a study of all of them found best, for those who leave the choice to growkit (`auto`). Knows rows of
that study (examples/benchmarks/compute_saved) as data; ignorant of plans and of checkpoints.
"""

from dataclasses import dataclass, replace

from growkit.errors import RequestError
from growkit.growth.request import AUTO, Recipe


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
    (True, False): StudiedStart(row="shrink-perturb", width="shrink-perturb", below=0.345),
    (False, True): StudiedStart(row="stack, carried state", depth="stack", below=0.412),
    (True, True): StudiedStart(row="shrink-perturb + stack", width="shrink-perturb", depth="stack", below=0.364),
}
# of what a mixture can, whose routers would part under others
OF_MIXTURES = {
    **BEST,
    (True, False): StudiedStart(row="AKI", width="aki", below=0.344),
    (True, True): StudiedStart(row="AKI + stack", width="aki", depth="stack", below=0.337),
}
OF_DENSE = "the study was of dense models"


def as_studied(recipe: Recipe, mixture: bool) -> tuple[Recipe, list[str]]:
    """(the recipe with every `auto` made a method, what a plan says of it); as it is where nothing is left open.

    Raises RequestError where there is nothing to choose.
    """
    depth = recipe.depth
    deepens = depth is not None and depth.method == AUTO
    if recipe.method != AUTO and not deepens:
        return recipe, []
    if recipe.method == AUTO and not recipe.widens:
        raise RequestError(
            f"--method {AUTO} chooses how to widen, and no size is asked for; --depth {AUTO} chooses how to deepen"
        )
    best = (OF_MIXTURES if mixture else BEST)[recipe.widens, depth is not None]
    if deepens:
        assert depth is not None
        depth = replace(depth, method=best.depth or depth.method)
    method = recipe.method if recipe.method != AUTO else best.width or Recipe.method
    noise = recipe.noise if recipe.method != AUTO or method != Recipe.method else Recipe.noise
    took = [word for word, left in ((best.width, recipe.method == AUTO), (best.depth, deepens)) if left and word]
    note = (
        f"auto took {' and '.join(took)}, by the row {best.row!r} of what growing saves (docs/benchmarks.md): {best.below:.2f}"
        " nats below scratch after as many tokens" + (f"; {OF_DENSE}" if mixture else "")
    )
    return replace(recipe, method=method, depth=depth, noise=noise), [note]
