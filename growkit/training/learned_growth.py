"""A growth whose maps learn on the task's own loss before anything is written. Knows the order of things and what it
costs; ignorant of what maps are made of.

The large model is computed from the small one's frozen weights anew at each step (torch.func.functional_call), so that
gradients reach the maps. Unlike every other growth this one holds the model: the source, the result, its gradient and
the maps with their moments, all in float32.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.source import Checkpoint
from growkit.data.batches import Batch, Batches
from growkit.data.tokens import Tokens, open_tokens
from growkit.errors import RequestError
from growkit.families import vocabulary_size
from growkit.growth.learning import Learn
from growkit.growth.plan import Plan
from growkit.models.devices import device_named
from growkit.models.running import objective
from growkit.models.stock import computing
from growkit.models.verify import room_for
from growkit.operators.draws import Given
from growkit.training.blank import live_names, model_of
from growkit.training.flops import forward_flops, step_flops
from growkit.training.learned_maps import LearnedMaps
from growkit.training.objective import nats
from growkit.training.optim import rate
from growkit.training.ready import check_tokens, mask_token
from growkit.training.run_request import usable_positions

MEASURED = 4  # batches that are measured before and after
CONTEXT = 128  # tokens of a window, where the model has as many positions
WARMUP = 10  # steps at least
BYTES_OF_EACH = 6  # per parameter that room_for speaks of
BETAS = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class WhatWasLearned:
    """What learning came to. before, after: nats per predicted token, on the same text. tokens: that it learned from.
    flops: that it took, measuring included. data: SHA-256 of the tokens."""

    before: float
    after: float
    tokens: int
    flops: float
    data: str

    def to_json(self) -> dict[str, Any]:
        """What growkit.json says of it."""
        losses = {"loss_before": self.before, "loss_after": self.after}
        return {**losses, "tokens": self.tokens, "flops": self.flops, "data": self.data}


def learned(plan: Plan, source: Checkpoint) -> Plan:
    """The plan with the tensors that learned maps make, and what that took. Raises RequestError for data that does not
    fit, and where the loss did not fall."""
    learn = plan.recipe.learn
    assert learn is not None, "the plan asks for maps that learn"
    maps, told = learned_maps(plan, source, learn)
    with torch.no_grad():
        made = {name: tensor.cpu() for name, tensor in maps(_weights(source, plan, maps)).items()}
    tensors = tuple(replace(tensor, parts=(), draw=Given(made[tensor.name].contiguous())) for tensor in plan.tensors)
    note = (
        f"maps learned for {learn.steps} steps of {told.tokens // max(1, learn.steps):,} tokens: {told.before:.4f} ->"
        f" {told.after:.4f} nats, {told.flops:.3g} FLOPs"
    )
    return replace(plan, tensors=tensors, notes=(*plan.notes, note), learned=told.to_json())


def learned_maps(plan: Plan, source: Checkpoint, learn: Learn) -> tuple[LearnedMaps, WhatWasLearned]:
    """The maps of a plan after learning, and what it came to. Raises as learned does."""
    device = device_named(learn.device)
    if lacking := room_for(plan.peak_bytes // BYTES_OF_EACH, "learning the maps"):
        raise RequestError(lacking)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in source.tensors.values()) else torch.float32
    text = open_tokens(learn.data)
    batches = _batches(plan, source, learn, text)
    model = model_of(plan.config, source.label, dtype, device)
    maps = LearnedMaps(plan, dtype, plan.recipe.seed).to(device)
    weights = _weights(source, plan, maps)
    names = live_names(plan.family, [tensor.name for tensor in plan.tensors], model, source.label)

    def loss(batch: Batch) -> torch.Tensor:
        moved, made = batch.to(device), maps(weights)
        tensors = {live: made[name] for name, live in names.items()}
        more = {} if batches.masked else {"use_cache": False}
        with computing(type(model).__name__):
            output = torch.func.functional_call(model, tensors, (), {"input_ids": moved.inputs, **more})
        scores = output["logits"] if "logits" in output else output["prediction_logits"]
        chosen = moved.labels >= 0
        return nats(scores[chosen], moved.labels[chosen]) / batch.predicted

    tokens = batches.size * batches.length
    shape = len(plan.layers.index), batches.length
    each = step_flops(model, tokens, shape[1], shape[0], shape[0]) + 3.0 * maps.operations
    measuring = forward_flops(model, tokens, shape[1]) + maps.operations
    shown = [batches.rows(step, 0, batches.size) for step in range(min(MEASURED, max(1, learn.steps)))]
    before = _mean(loss, shown)
    _train(maps, lambda step: loss(batches.rows(step, 0, batches.size)), learn)
    after = _mean(loss, shown)
    if learn.steps and not after < before:
        raise RequestError(
            f"--learn {learn.steps} did not lower the loss ({before:.4f} -> {after:.4f}); give more steps or another"
            f" --learn-lr than {learn.lr:g}"
        )
    flops = learn.steps * each + 2 * len(shown) * measuring
    told = WhatWasLearned(
        before=before, after=after, tokens=learn.steps * tokens, flops=flops, data=file_hash(text.path)
    )
    return maps, told


def _train(maps: LearnedMaps, loss: Callable[[int], torch.Tensor], learn: Learn) -> None:
    """Adam on the maps. A step moves a row of a matrix by about the rate, beside a row of length 1."""
    groups = [{"params": [parameter], "scale": 1.0 / math.sqrt(parameter.shape[1])} for parameter in maps.parameters()]
    optimizer = torch.optim.Adam(groups, lr=0.0, betas=BETAS)
    warmup = max(WARMUP, learn.steps // 10)  # Adam's first steps move every entry alike
    for step in range(learn.steps):
        for group in optimizer.param_groups:
            group["lr"] = learn.lr * group["scale"] * rate(step, learn.steps, warmup, "cosine")
        optimizer.zero_grad(set_to_none=True)
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_(maps.parameters(), 1.0)
        optimizer.step()


def _mean(loss: Callable[[Batch], torch.Tensor], batches: list[Batch]) -> float:
    with torch.no_grad():
        return float(torch.stack([loss(batch) for batch in batches]).double().mean())


def _weights(source: Checkpoint, plan: Plan, maps: LearnedMaps) -> Mapping[str, torch.Tensor]:
    """The source's tensors, whole and on the maps' device."""
    device = next(maps.parameters()).device
    return {
        name: source.rows(name, np.arange(shape[0] if shape else 1)).reshape(shape).to(device, maps.dtype)
        for name, shape in plan.members[0].shapes.items()
        if not plan.family.is_buffer(name)
    }


def _batches(plan: Plan, source: Checkpoint, learn: Learn, tokens: Tokens) -> Batches:
    """What the maps learn from: windows of the data's training split."""
    config = plan.config
    causal = objective(config, source.label)
    if tokens.is_chat:
        raise RequestError(
            f"{learn.data!r} holds conversations, and --learn learns from text; growkit tokenize makes it"
        )
    check_tokens([tokens], [tokens.ids.max()], source, config)
    longest = usable_positions(config)
    if learn.seq_len is not None and longest is not None and learn.seq_len > longest:
        raise RequestError(f"--seq-len {learn.seq_len} is more than the model's {longest} positions")
    rows = vocabulary_size(config)
    return Batches(
        tokens=tokens.ids,
        length=learn.seq_len or min(CONTEXT, longest or CONTEXT),
        size=learn.batch_size,
        seed=plan.recipe.seed,
        masked=None if causal else (mask_token(source, rows), rows),
    )
