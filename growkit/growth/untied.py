"""A tied head made a tensor of its own, so that a model goes with others that have one. Knows where stock models keep
heads; ignorant of values, which stay as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from growkit.checkpoint.source import Checkpoint
from growkit.families import Family, family_named
from growkit.growth.source_headers import is_tied
from growkit.growth.sources import head_and_embedding, headers_of

Untie = Callable[[Checkpoint, Family], Checkpoint]


def untied(checkpoint: Checkpoint, family: Family) -> Checkpoint:
    """The same model with a head of its own, equal to the embedding."""
    head, embedding = head_and_embedding(family, checkpoint.tensors)
    assert embedding is not None and checkpoint.config is not None, "a tied head is tied to an embedding"
    tensors = dict(checkpoint.tensors)
    head = head or family.heads[0]
    tensors.setdefault(head, replace(tensors[embedding], name=head))
    bias = head.removesuffix("weight") + "bias"
    of_parent = f"{head.rpartition('.')[0].rpartition('.')[0]}.bias"  # where BERT keeps the bias of a tied head
    if family.knows(bias) and of_parent in tensors:
        tensors.setdefault(bias, replace(tensors[of_parent], name=bias))
    return replace(checkpoint, tensors=tensors, config={**checkpoint.config, "tie_word_embeddings": False})


def tied_alike(models: Sequence[Checkpoint], untie: Untie = untied) -> list[Checkpoint]:
    """Models as they are where all heads are tied or none is; else each with a head of its own, and a note of it.

    Which family each is of, and whether they go together at all, is for others to say.
    """
    if len(models) < 2:
        return list(models)
    families = [family_named((model.config or {}).get("model_type")) for model in models]
    headers = [headers_of(model) for model in models]
    tied = [is_tied(family, header) for family, header in zip(families, headers)]
    if len({family.model_type for family in families}) > 1 or len({*tied}) < 2:
        return list(models)
    other = models[tied.index(False)]
    alike = []
    for model, family, is_one in zip(models, families, tied):
        if is_one:
            note = (
                f"{model.label!r} has a tied head and {other.label!r} has not: it is read as if it had one of its own,"
                " and so has the result"
            )
            model = untie(model, family)
            model = replace(model, notes=(*model.notes, note))
        alike.append(model)
    return alike
