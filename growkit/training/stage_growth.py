"""Growth between the stages of a run: planned for all of them before the first one trains, and carried out. Knows plans
and what a run's folders hold; ignorant of steps.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from growkit.checkpoint.source import Checkpoint
from growkit.errors import GrowkitError, RequestError
from growkit.families import family_named
from growkit.growth.carry_out import carry_out
from growkit.growth.grow_plan import grow_plan
from growkit.growth.optimizer import kept_state
from growkit.growth.prepare import Options
from growkit.growth.request import Recipe, stack_recipe
from growkit.growth.source_headers import Headers
from growkit.training.blank import blank_model
from growkit.training.saved import clear_left, kept_tensors, state_class
from growkit.training.sharing import stored_parts
from growkit.training.stages import Stage


def check_growth(source: Checkpoint, stages: Sequence[Stage]) -> None:
    """Plan the growth of each stage, from the headers of what the one before will leave; no byte is touched.

    Raises RequestError with the name of a stage that cannot be made, CheckpointError where transformers cannot make the
    model itself.
    """
    growing = [stage for stage in stages if stage.layers is not None]
    headers = _left_by(source) if growing else None
    for stage in growing:
        assert headers is not None
        try:
            plan = grow_plan([headers], _recipe(stage))
        except GrowkitError as error:
            raise RequestError(f"stage {stage.name!r} cannot be made: {error}") from None
        shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
        headers = _headers(f"stage {stage.name}", shapes, json.loads(json.dumps(plan.config)))


def grow_stage(before: Path, after: Path, stage: Stage) -> None:
    """Stack a model between two stages, its optimizer state along with it; what a killed run left of that goes."""
    clear_left(after)
    carry_out([before], after, _recipe(stage), Options(optimizer=kept_state(before), force=True))


def _recipe(stage: Stage) -> Recipe:
    return stack_recipe(layers=stage.layers, method=stage.depth)


def _left_by(source: Checkpoint) -> Headers:
    """What the folder says that a run on this checkpoint leaves after its first stage."""
    model = blank_model(source).model
    state_class(model)
    parts = stored_parts(family_named(model.config.model_type), kept_tensors(model))
    shapes = {name: part.shape for name, part in sorted(parts.items())}
    return _headers(source.label, shapes, json.loads(model.config.to_json_string()))


def _headers(label: str, shapes: dict[str, tuple[int, ...]], config: dict[str, object]) -> Headers:
    """Headers of a folder whose head, where one is stored, is another than its embedding: else it would be tied."""
    dtypes = dict.fromkeys(shapes, torch.float32)
    family = family_named(config.get("model_type"))
    stored = {family.stem(name) for name in shapes}
    tied = config.get("tie_word_embeddings", family.tied)
    apart = tied and family.embedding in stored and bool(stored & set(family.heads))
    return Headers(label=label, shapes=shapes, dtypes=dtypes, config=config, head_is_copy=False if apart else None)
