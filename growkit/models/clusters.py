"""Routers that start where a text's hidden states lie: one row for each cluster of what a layer's experts will read.
Knows how to find clusters in a live dense model; ignorant of experts' weights.

A router of random rows cuts the stream into arbitrary parts; the router that training finds follows the clusters of its
inputs (arXiv 2208.02813), and rows made of mean hidden states are how routers of untrained mixtures are usually set.
Which is better after training has to be measured; what is computed at the start is the same where the experts are
equal.
"""

from dataclasses import replace

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, Checkpoint
from growkit.errors import RequestError
from growkit.families.upcycling import upcycling_of
from growkit.growth.plan import Plan, TensorPlan
from growkit.models.running import load_model, loadable, sequences_for, tokenizer_of
from growkit.models.verify import room_for
from growkit.operators.draws import Fill, Given
from growkit.operators.seeds import generator

SEQUENCES, LENGTH = 64, 128  # of the text, spread over its length
ROUNDS = 25


def with_clusters(plan: Plan, source: Checkpoint) -> Plan:
    """The plan with each router's rows at the centres of a text's hidden states in the dense model.

    Loads the dense model in float32. Raises RequestError where it does not fit in memory or the text is too short.
    """
    experts = plan.recipe.experts
    assert experts is not None and experts.text is not None, "the plan asks for clusters of a text"
    lacking = room_for(plan.parameters()[0], "finding the clusters of a text")
    if lacking:
        raise RequestError(lacking)
    routers = {
        name: (layer, tensor.draw)
        for name, tensor in ((tensor.name, tensor) for tensor in plan.tensors)
        if isinstance(tensor.draw, Fill) and (layer := plan.result_family.layer_of(name)) is not None
    }
    states = hidden_states(source, plan, experts.text, [layer for layer, _ in routers.values()])
    given = {}
    for name, (layer, fill) in routers.items():
        rows = centres(states[layer], fill.shape[0] // fill.repeat, plan.recipe.seed, name)
        given[name] = Given(rows.repeat_interleave(fill.repeat, 0))
    tensors = tuple(_with_draw(tensor, given.get(tensor.name)) for tensor in plan.tensors)
    return replace(plan, tensors=tensors)


def _with_draw(tensor: TensorPlan, given: Given | None) -> TensorPlan:
    return tensor if given is None else replace(tensor, draw=given)


def hidden_states(source: Checkpoint, plan: Plan, text: str, layers: list[int]) -> dict[int, torch.Tensor]:
    """(tokens, hidden) by layer: what the feed-forward blocks of these layers, counted from 0, read of a text."""
    row = upcycling_of(source.label, plan.family.model_type)
    states: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    with loadable(source) as folder:
        config = read_model_config(folder / CONFIG)
        sequences = sequences_for(config, tokenizer_of(folder), text, plan.recipe.seed, source.label, SEQUENCES, LENGTH)
        model, _ = load_model(config, folder, torch.float32)
        wanted = {row.norm.format(layer=layer): layer for layer in layers}
        for name, module in model.named_modules():
            layer = wanted.get(plan.family.stem(name))
            if layer is not None:
                module.register_forward_hook(
                    lambda module, inputs, output, kept=states[layer]: kept.append(output.flatten(0, -2))
                )
        with torch.no_grad():
            for ids in sequences:
                model(input_ids=ids[None])
    return {layer: torch.cat(values) for layer, values in states.items()}


def centres(states: torch.Tensor, count: int, seed: int, key: str) -> torch.Tensor:
    """(count, hidden) router rows: the directions of `count` clusters of states (tokens, hidden), by spherical k-means.

    Directions are taken from the mean of all states and at right angles to it, so that a token's logits say where it
    lies and not how long it is; rows are scaled so that the logits of the text have deviation 1. Raises RequestError
    for fewer tokens than clusters.
    """
    if len(states) < count:
        raise RequestError(f"the text makes {len(states)} tokens, too few for {count} clusters; give more with --text")
    mean = states.mean(0)
    directions = torch.nn.functional.normalize(states - mean, dim=1)
    draws = generator(seed, f"clusters of {key}")
    rows = directions[torch.randint(len(states), (1,), generator=draws)]
    while len(rows) < count:  # each next one where no row points yet (k-means++)
        distance = (1 - (directions @ rows.T).max(1).values).clamp(min=0) + 1e-9
        rows = torch.cat([rows, directions[torch.multinomial(distance, 1, generator=draws)]])
    for _ in range(ROUNDS):
        nearest = (directions @ rows.T).argmax(1)
        total = torch.zeros_like(rows).index_add_(0, nearest, directions)
        moved = torch.nn.functional.normalize(total, dim=1)
        rows = torch.where(total.norm(dim=1, keepdim=True) > 0, moved, rows)
    across = torch.nn.functional.normalize(mean, dim=0)
    rows = rows - (rows @ across)[:, None] * across
    return rows / (states @ rows.T).std().clamp(min=1e-12)
