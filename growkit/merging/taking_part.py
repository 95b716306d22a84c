"""Which tensors of models take part in a merge: those that all have, where no model needs the others. Knows which
tensors stock classes use; ignorant of values.
"""

from collections.abc import Sequence
from dataclasses import replace

from growkit.families import Family
from growkit.families.stacked import live_name
from growkit.growth.kin import names_of, stem_of
from growkit.growth.source_headers import Headers, architecture_of
from growkit.models.stock import parameter_names

NAMED = 4  # tensors that a note names before it counts


def taking_part(family: Family, models: Sequence[Headers], based: bool, body: bool) -> tuple[list[Headers], list[str]]:
    """Models with no tensors but those that take part, and notes on the others. based: whether the first is a base,
    whose others stay.

    body: of each only the base model, which classes with other heads have too, and outside its layers what all have
    (a pooler may be one's alone). Else what each model's class uses: BERT's first files hold a pooler and a
    next-sentence head beside a masked language model. Raises CheckpointError for a class transformers does not have.
    """
    stems = [{*names_of(family, model)} for model in models]
    if body:
        used, everywhere = _used(family, models[0], ""), set.intersection(*stems)
        wanted = [
            {s for s in own if _live(family, s) in used and (s in everywhere or family.layer_of(s) is not None)}
            for own in stems
        ]
    elif all(own == stems[0] for own in stems):
        return list(models), []
    else:
        classes = [_used(family, model, architecture_of(family, model)) for model in models]
        wanted = [{s for s in own if _live(family, s) in used} for own, used in zip(stems, classes)]
    parts, notes = [], []
    for number, (model, own) in enumerate(zip(models, wanted)):
        names = {n for n in model.shapes if family.is_buffer(n) or stem_of(family, model, n) in own}
        left = sorted(name for name in model.shapes if name not in names)
        parts.append(
            replace(
                model,
                shapes={name: shape for name, shape in model.shapes.items() if name in names},
                dtypes={name: dtype for name, dtype in model.dtypes.items() if name in names},
            )
        )
        if left:
            beside = "the body that all share" if body else f"what a {architecture_of(family, model)} uses"
            more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
            fate = "stays as it is" if based and number == 0 else "is left out"
            notes.append(f"what {model.label!r} has beside {beside} {fate}: {', '.join(left[:NAMED])}{more}")
    return parts, notes


def _used(family: Family, model: Headers, architecture: str) -> set[str]:
    """Stems of the parameters that a stock class has, "" for the base model, as live models call them."""
    # untied, so that a head of its own is listed where a file has one
    config = {**model.config, "architectures": [architecture] if architecture else None, "tie_word_embeddings": False}
    return {_live(family, family.stem(name)) for name in parameter_names(config, model.label)}


def _live(family: Family, stem: str) -> str:
    """What a live model calls a stored tensor; a head by the first of its names."""
    live = live_name(family, stem)[0]
    return family.heads[0] if live in family.heads else live
