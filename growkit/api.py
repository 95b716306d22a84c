"""What people call: the Python twins of the commands. Knows the order of things; every step lives below.

import growkit
growkit.widen("src", "wide", hidden=1024)
growkit.stack("wide", "deep", layers=24)
growkit.verify("src", "wide").ok
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.lineage import current_checkpoint
from growkit.checkpoint.stream import StateSource
from growkit.families import family_named
from growkit.families.stacked import join_experts, split_experts
from growkit.growth.carry_out import Grown, carry_out
from growkit.growth.execute import grow_tensor
from growkit.growth.grow_plan import grow_plan
from growkit.growth.plan import Plan
from growkit.growth.prepare import Build, Path_, prepared
from growkit.growth.request import grow_recipe, recipe, stack_recipe, upcycle_recipe
from growkit.growth.source_headers import Headers
from growkit.growth.sources import head_and_embedding


def widen(source: Path_, out: Path_ | None = None, **keywords: Any) -> Grown:
    """Grow a checkpoint in width into a new Hugging Face folder.

    source: folder, .safetensors file or hub id. out: the folder to make; without it, one in the current folder named by
    what changed. keywords: hidden, heads, kv_heads, head_dim, ffn, method ("fpi", "aki"), mapping ("cyclic", "random"),
    noise, seed, dtype, and those of Options.

    Raises CheckpointError or RequestError, having written nothing and touched nothing.
    """
    return _grow([source], out, recipe, keywords)


def stack(source: Path_ | Sequence[Path_] | None = None, out: Path_ | None = None, **keywords: Any) -> Grown:
    """Grow a checkpoint in depth, or stack several: the layers of the first, then of the second, and so on.

    source: one checkpoint, several, or None for the current one (see growkit.checkpoint.lineage). Several are first widened to the
    largest of each size; what stands before the layers comes from the first, what follows from the last. keywords: layers,
    method ("stack", "interleave", "top", "middle", "identity", "solar"), overlap, after, every, block, slices, seed, dtype,
    and those of Options. Raises as `widen` does.
    """
    return _grow(_named(source), out, stack_recipe, keywords)


def grow(source: Path_, out: Path_ | None = None, *, like: Path_ | None = None, **keywords: Any) -> Grown:
    """Grow a checkpoint in width and depth in one pass: the bytes that `widen`, then `stack` would give.

    like: sizes of another model, as a name (bert-base), a config.json or a checkpoint. keywords: those of `widen`, layers,
    depth (the method of `stack`) and its placing options, and those of Options. Raises as `widen` does.
    """
    return _grow([source], out, grow_recipe, keywords, like)


def fuse(sources: Sequence[Path_], out: Path_ | None = None, *, mode: str = "side-by-side", **keywords: Any) -> Grown:
    """Make one model of several of one family and tokenizer.

    mode: "side-by-side" (each computes in its own block; logits are averaged), or "fpi" or "aki" (the first widened, whose
    later copies are the others' units, with aki from the layer above). keywords: sizes as in `widen` for fpi and aki,
    noise, seed, dtype, and those of Options. Raises as `widen` does.
    """
    return _grow(list(sources), out, recipe, {"mode": mode, **keywords})


def upcycle(sources: Path_ | Sequence[Path_], out: Path_ | None = None, **keywords: Any) -> Grown:
    """Make a mixture of experts of a dense model, or of several fine-tuned from one: llama and mistral become mixtral, qwen2
    qwen2_moe, qwen3 qwen3_moe.

    sources: one checkpoint, whose feed-forward layers become the experts, or several, which give theirs in turn and of
    which everything else is averaged. keywords: experts, top_k, granularity, shared, layers, diversity ("none",
    "noise[:SHARE]", "drop[:SHARE]"), router ("normal", "clusters" of a text), text, seed, dtype (see growkit.growth.request.Experts), and those of Options. Raises as
    `widen` does.
    """
    return _grow(_named(sources), out, upcycle_recipe, keywords)


def plan_widen(source: Path_, out: Path_ | None = None, **keywords: Any) -> Plan:
    """What `widen` would do, without writing anything; it refuses what `widen` would."""
    return _plan([source], out, recipe, keywords)


def plan_stack(source: Path_ | Sequence[Path_] | None = None, out: Path_ | None = None, **keywords: Any) -> Plan:
    """What `stack` would do, without writing anything."""
    return _plan(_named(source), out, stack_recipe, keywords)


def plan_grow(source: Path_, out: Path_ | None = None, *, like: Path_ | None = None, **keywords: Any) -> Plan:
    """What `grow` would do, without writing anything."""
    return _plan([source], out, grow_recipe, keywords, like)


def plan_fuse(
    sources: Sequence[Path_], out: Path_ | None = None, *, mode: str = "side-by-side", **keywords: Any
) -> Plan:
    """What `fuse` would do, without writing anything."""
    return _plan(list(sources), out, recipe, {"mode": mode, **keywords})


def plan_upcycle(sources: Path_ | Sequence[Path_], out: Path_ | None = None, **keywords: Any) -> Plan:
    """What `upcycle` would do, without writing anything."""
    return _plan(_named(sources), out, upcycle_recipe, keywords)


def prove(sources: Sequence[Path_], grown: Grown, family: str | None = None, source_heads: int | None = None) -> Grown:
    """Verify a growth that was just made, where it fits in memory; the report, or why there is none, is in the result."""
    from growkit.models import verify as proof  # loads transformers

    too_big = proof.fits_in_memory(grown.plan)
    if too_big:
        return replace(grown, unverified=too_big)
    # without a head there is nothing to average: hidden states are compared with the first source's
    headed = any(word in grown.plan.growth.architecture for word in ("For", "Head"))
    before = list(sources) if headed else sources[0]
    return replace(grown, report=proof.verify(before, grown.folder, family=family, source_heads=source_heads))


def grow_state_dict(
    state: Mapping[str, torch.Tensor], config: Any, **request: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Grow a live model's state dict: (new state, new config as a dict), on the CPU, bit for bit what `grow` writes.

    config: a transformers config or its dict; request: sizes, layers and how, as in `grow`. Experts may be stacked, as live
    models hold them, or one by one, as files do; they stay as they come. The model itself is not
    changed; build the new one from the new config and load the new state. Raises CheckpointError or RequestError.
    """
    content = dict(config.to_dict() if hasattr(config, "to_dict") else config)
    family = family_named(content.get("model_type"))
    tensors = split_experts(family, state)
    head, embedding = head_and_embedding(family, tensors)
    headers = Headers(
        "the state dict",
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tensor.dtype for name, tensor in tensors.items()},
        content,
        head_is_copy=torch.equal(tensors[head], tensors[embedding]) if head and embedding else None,
        # names without a prefix are a base model's own, whatever class its config remembers
        body=head is None and not any(name.startswith(family.prefixes) for name in tensors),
    )
    sources = [StateSource(tensors)]
    todo = grow_plan([headers], grow_recipe(**request))
    grown = {tensor.name: grow_tensor(tensor, sources, todo.recipe.seed) for tensor in todo.tensors}
    return (grown if tensors.keys() == state.keys() else join_experts(family, grown)), todo.config


def _named(source: Path_ | Sequence[Path_] | None) -> list[Path_]:
    if source is None:
        return [current_checkpoint(Path())]
    return [source] if isinstance(source, str | Path) else list(source)


def _grow(
    sources: Sequence[Path_],
    out: Path_ | None,
    build: Build,
    keywords: dict[str, Any],
    like: Path_ | None = None,
) -> Grown:
    grown = carry_out(sources, out, build, keywords, like, _with_clusters)
    if not keywords.get("verify"):
        return grown
    return prove(sources, grown, keywords.get("family"), keywords.get("source_heads"))


def _with_clusters(plan: Plan, source: Any) -> Plan:
    if plan.recipe.experts is None or plan.recipe.experts.router != "clusters":
        return plan
    from growkit.models.clusters import with_clusters  # loads transformers

    return with_clusters(plan, source)


def _plan(
    sources: Sequence[Path_],
    out: Path_ | None,
    build: Build,
    keywords: dict[str, Any],
    like: Path_ | None = None,
) -> Plan:
    with prepared(sources, out, build, keywords, like) as ready:
        return ready.plan


def pretrain(
    checkpoint: Path_,
    data: Path_,
    out: Path_,
    *,
    resume: bool = False,
    watch: Callable[[dict[str, Any]], None] = lambda _: None,
    **request: Any,
) -> Any:
    """Continue a checkpoint's pretraining into a run folder; the trained checkpoint becomes out/final.

    data: a dataset of growkit tokenize, or a .bin file. request: one of steps, tokens, epochs; schedule ("plain", "two-stage",
    "stackbert", "mslt") with sub_layers, sub_steps, to_layers, or stages; seq_len, batch_size (sequences), lr, warmup and
    whatever else growkit.training.settings.Settings has; teacher, teacher_steps. resume: go on with the run that is there.
    watch: called with each line of metrics. Raises RequestError, CheckpointError, or NotFiniteError where the loss is NaN.
    """
    from growkit.training.pretrain import pretrain as run
    from growkit.training.run_request import settings

    return run(settings(checkpoint, data, out, **request), resume, watch)
