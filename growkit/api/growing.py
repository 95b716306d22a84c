"""What the doors of growth share: a request carried out, and its proof. Knows the order of things; every step lives
below.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from growkit.checkpoint.source import Checkpoint
    from growkit.growth.carry_out import Grown
    from growkit.growth.plan import Plan
    from growkit.growth.prepare import Options
    from growkit.growth.request import Recipe


def grown(
    sources: Sequence[str | Path], out: str | Path | None, recipe: "Recipe", options: "Options", verify: bool
) -> "Grown":
    """A growth, and where `verify` says so its proof. Raises CheckpointError or RequestError, having written
    nothing."""
    from growkit.growth.carry_out import carry_out

    if recipe.learn is not None:
        from growkit.data.tokens import open_tokens

        open_tokens(recipe.learn.data)  # refuses what is none before anything is planned
    result = carry_out(sources, out, recipe, replace(options, proof=verify), _refined, drawn_as_new)
    if not verify or options.dry_run:
        return result
    from growkit.models.prove import proved  # loads transformers

    return proved(result, sources, options.family, options.source_heads)


def _refined(plan: "Plan", source: "Checkpoint") -> "Plan":
    """The plan with what only a live model can tell: maps that learned, routers from a text."""
    if plan.recipe.learn is not None:
        from growkit.training.learned_growth import learned  # loads transformers

        return learned(plan, source)
    if plan.recipe.experts is None or plan.recipe.experts.router != "clusters":
        return plan
    from growkit.models.clusters import with_clusters  # loads transformers

    return with_clusters(plan, source)


def drawn_as_new(plan: "Plan") -> "Plan":
    """The plan with what it leaves open drawn as transformers draws a new model's weights."""
    from growkit.operators.draws import Rest

    if not any(isinstance(tensor.draw, Rest) for tensor in plan.tensors):
        return plan
    from growkit.training.new_weights import with_new_weights  # loads transformers

    return with_new_weights(plan)


def several(source: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """One checkpoint or several as a list; for none the newest growth in the current folder."""
    if source is None:
        from growkit.checkpoint.lineage import current_checkpoint

        return [current_checkpoint(Path())]
    return [source] if isinstance(source, str | Path) else list(source)
