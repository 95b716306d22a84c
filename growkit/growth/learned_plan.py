"""The plan of an exact growth as one whose maps learn. Knows plans; ignorant of how maps learn."""

from dataclasses import replace

from growkit.errors import RequestError
from growkit.growth.plan import Plan
from growkit.maps.exactness import Exactness


def as_learned(plan: Plan) -> Plan:
    """The plan of an exact growth as one whose maps learn. Raises RequestError for what they cannot be learned of."""
    recipe, family, source = plan.recipe, plan.family, plan.source
    assert recipe.learn is not None, "the request asks for maps that learn"
    unlike = {
        f"--method {recipe.method}": recipe.method != "fpi",
        f"--noise {recipe.noise}": recipe.noise != 0,
        "--depth average": plan.layers.name == "average",
    }
    for option, given in unlike.items():
        if given:
            raise RequestError(f"--learn begins at the exact maps and finds its own way: leave {option} out")
    if family.is_moe or family.stacks or family.reads_pixels or family.passes:
        raise RequestError(
            f"--learn is for dense language models of one stack of layers, and {source!r} is a {family.model_type}"
        )
    if family.first_lacks:
        raise RequestError(
            f"--learn mixes layers, and the first of a {family.model_type} is unlike the others; grow it without"
        )
    why = "its map is learned on the task's loss, beginning at the exact one"
    axes = tuple(replace(line, exactness=Exactness.APPROXIMATE, why=why) for line in plan.axes if line.how != "kept")
    note = f"maps learn for {recipe.learn.steps:,} steps first, and that holds the model whole (peak memory)"
    return replace(plan, axes=axes or plan.axes, notes=(*plan.notes, note))
