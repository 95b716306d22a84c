"""The commands around fine-tuned models: merge, delta, apply. Knows options; everything else is the library's."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from growkit.cli import options as o
from growkit.cli.app import app, people_errors

METHOD, WHAT = "Method", "What to merge"
KEPT = "interrupted; nothing was kept"


@app.command()
def merge(
    members: Annotated[list[str], typer.Argument(metavar="M1[:WEIGHT] M2[:WEIGHT]...", help="Fine-tuned models: folders, .safetensors files, hub ids; weight 1 where none is given.")],
    base: Annotated[Optional[str], o.option(WHAT, "BASE", "What they were fine-tuned from; average and slerp can do without.")] = None,
    vocab: Annotated[str, o.option(WHAT, "same|base|tokens", "Where vocabularies differ: refuse; keep the base's and match rows by token id; or by token.")] = "same",
    method: Annotated[str, o.option(METHOD, "dare|task-arithmetic|ties|dare-ties|della|breadcrumbs|average|slerp|tsv|iso-c", "How deltas are thinned and made one.")] = "dare",
    drop: Annotated[Optional[float], o.option(METHOD, "P", "dare, dare-ties: probability that an element of a delta is dropped; the others are divided by 1 - P. Default 0.5.")] = None,
    density: Annotated[Optional[float], o.option(METHOD, "D", "ties: share of the largest kept, default 0.2; della: mean probability to keep, 0.7; breadcrumbs: share kept, 0.1.")] = None,
    epsilon: Annotated[Optional[float], o.option(METHOD, "E", "della: from density - E for the smallest of a row to density + E for the largest; default 0.07.")] = None,
    gamma: Annotated[Optional[float], o.option(METHOD, "G", "breadcrumbs: share of the largest of a tensor that is left out too; default 0.01.")] = None,
    scale: Annotated[float, o.option(METHOD, "L", "What the merged delta is multiplied by before it is added to the base.")] = 1.0,
    seed: Annotated[int, o.option(METHOD, "S", "For what is dropped by chance.")] = 0,
    drop_vectors: Annotated[bool, o.option(METHOD, None, "Drop by chance in norms and biases too: few numbers, so much noise.", "--drop-vectors")] = False,
    dtype: Annotated[Optional[str], o.option(METHOD, "TYPE", "Store as float64, float32, bfloat16 or float16; default as the base.")] = None,
    allow_nonfinite: Annotated[bool, o.option(METHOD, None, "Merge NaN and Inf weights as they are.", "--allow-nonfinite")] = False,
    out: o.Out = None, shard_size: o.ShardSize = "5GB", dry_run: o.DryRun = False, as_json: o.AsJson = False, force: o.Force = False,
) -> None:  # fmt: skip
    """Merge models fine-tuned from one base: base + scale x what they learned, thinned and weighed as the method says."""
    with people_errors(KEPT):
        shard_bytes = o.size_in_bytes(shard_size)
        from growkit.cli import show_merging as show
        from growkit.merging import merge as api

        request: dict[str, Any] = dict(
            base=base, vocab=vocab, method=method, drop=drop, density=density, epsilon=epsilon, gamma=gamma, scale=scale,
            seed=seed, drop_vectors=drop_vectors, dtype=dtype, force=force,
        )  # fmt: skip
        if dry_run:
            show.plan(api.plan_merge(members, out, **request), as_json)
            return
        with show.writing(as_json) as (announce, progress):
            done = api.merge(
                members, out, shard_bytes=shard_bytes, allow_nonfinite=allow_nonfinite, announce=announce,
                progress=progress, **request,
            )  # fmt: skip
        show.merged(done, as_json)


@app.command()
def delta(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model before: a folder, a .safetensors file or a hub id.")],
    member: Annotated[str, typer.Argument(metavar="M", help="The model fine-tuned from it.")],
    save: Annotated[Optional[Path], o.option(o.OUTPUT, "DELTA", "Folder to make of it: a sparse delta, or with --rank a LoRA.", "--save")] = None,
    drop: Annotated[Optional[float], o.option(o.OUTPUT, "P", "Save a sparse delta thinned as DARE does; default nothing is dropped.")] = None,
    rank: Annotated[Optional[int], o.option(o.OUTPUT, "R", "Save the linear layers' deltas as a LoRA of rank R that PEFT loads.", min=1)] = None,
    seed: Annotated[int, o.option(o.OUTPUT, "S", "For what is dropped by chance.")] = 0,
    as_json: o.AsJson = False, force: o.Force = False,
) -> None:  # fmt: skip
    """Show how large and how redundant a fine-tuned model's changes are, and save them as a small file."""
    with people_errors(KEPT):
        from growkit.cli import show_merging as show
        from growkit.merging import merge as api

        show.delta(api.delta(base, member, save, drop=drop, rank=rank, seed=seed, force=force), as_json)


@app.command()
def apply(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model to add to: a folder, a .safetensors file or a hub id.")],
    deltas: Annotated[list[str], typer.Argument(metavar="DELTA[:WEIGHT]...", help="Folders of growkit delta --save, or plain LoRA of PEFT.")],
    allow_nonfinite: Annotated[bool, o.option(METHOD, None, "Keep NaN and Inf weights as they are.", "--allow-nonfinite")] = False,
    out: o.Out = None, shard_size: o.ShardSize = "5GB", as_json: o.AsJson = False, force: o.Force = False,
) -> None:  # fmt: skip
    """Add saved deltas to a model: base + the sum of weight x delta."""
    with people_errors(KEPT):
        shard_bytes = o.size_in_bytes(shard_size)
        from growkit.cli import show_merging as show
        from growkit.merging import merge as api

        with show.writing(as_json) as (announce, progress):
            done = api.apply(
                base, deltas, out, shard_bytes=shard_bytes, force=force, allow_nonfinite=allow_nonfinite,
                announce=announce, progress=progress,
            )  # fmt: skip
        show.merged(done, as_json)
