"""The commands that grow: widen, stack, grow, fuse, upcycle. Knows options; everything else is the library's."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from growkit.cli import options as o
from growkit.cli.app import FAILED, INTERRUPTED, app, people_errors
from growkit.errors import GrowkitError

Sources = typer.Argument(
    metavar="[SRC...]", help="Checkpoints: folders, .safetensors files, hub ids. None: the newest growth here."
)
Members = typer.Argument(metavar="A B [C...]", help="Two checkpoints or more, of one family and tokenizer.")


def run(command: str, sources: list[str], common: o.Common, request: dict[str, Any]) -> None:
    """Plan, grow, prove and show, for any of the commands."""
    unproven = ""
    with people_errors("interrupted; nothing was kept"):
        shard_bytes = o.size_in_bytes(common.shard_size)
        from growkit import api
        from growkit.cli import show

        named: Any = sources if command in ("stack", "fuse", "upcycle") else sources[0]
        about: dict[str, Any] = dict(family=common.family, source_heads=common.source_heads)
        options = dict(force=common.force, optimizer=common.optimizer, **about, **request)
        if common.dry_run:
            show.plan(getattr(api, f"plan_{command}")(named, common.out, **options), common.as_json)
            return
        with show.writing(common.as_json) as (announce, progress):
            grown = getattr(api, command)(
                named, common.out, shard_bytes=shard_bytes, allow_nonfinite=common.allow_nonfinite,
                announce=announce, progress=progress, **options,
            )  # fmt: skip
        if common.verify:
            try:
                grown = api.prove(sources, grown, **about)
            except GrowkitError as error:
                unproven = str(error)
            except KeyboardInterrupt:
                unproven = "interrupted"
        show.grown(replace(grown, unverified=unproven or grown.unverified), common.as_json)
    if unproven == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if unproven or (grown.report is not None and not grown.report.ok):
        raise typer.Exit(FAILED)


@app.command()
def widen(
    source: o.Source, hidden: o.Hidden = None, heads: o.Heads = None, kv_heads: o.KvHeads = None,
    head_dim: o.HeadDim = None, ffn: o.Ffn = None, method: o.Method = "fpi", mapping: o.Mapping = "cyclic",
    noise: o.Noise = None, seed: o.Seed = 0, dtype: o.Dtype = None, optimizer: o.Optimizer = None,
    allow_nonfinite: o.AllowNonfinite = False, out: o.Out = None, shard_size: o.ShardSize = "5GB",
    dry_run: o.DryRun = False, as_json: o.AsJson = False, force: o.Force = False, verify: o.Verify = True,
    family: o.FamilyName = None, source_heads: o.SourceHeads = None,
) -> None:  # fmt: skip
    """Grow a checkpoint in width: hidden size, heads, head size, feed-forward size, alone or together."""
    common = o.Common(
        out, shard_size, dry_run, as_json, force, verify, optimizer, allow_nonfinite, family, source_heads
    )
    request = dict(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, method=method, mapping=mapping,
        noise=noise, seed=seed, dtype=dtype,
    )  # fmt: skip
    run("widen", [source], common, request)


@app.command()
def stack(
    sources: Annotated[Optional[list[str]], Sources] = None, layers: o.Layers = None,
    method: Annotated[str, typer.Option(metavar="stack|interleave|top|middle|identity|solar", rich_help_panel=o.DEPTH, help="Which layer each new one copies; identity keeps the function.")] = "stack",
    overlap: o.Overlap = None, after: o.After = None, every: o.Every = None, block: o.Block = None,
    slices: o.Slices = None, seed: o.Seed = 0, dtype: o.Dtype = None, optimizer: o.Optimizer = None,
    allow_nonfinite: o.AllowNonfinite = False, out: o.Out = None, shard_size: o.ShardSize = "5GB",
    dry_run: o.DryRun = False, as_json: o.AsJson = False, force: o.Force = False, verify: o.Verify = True,
    family: o.FamilyName = None, source_heads: o.SourceHeads = None,
) -> None:  # fmt: skip
    """Grow a checkpoint in depth, or stack the layers of several."""
    common = o.Common(
        out, shard_size, dry_run, as_json, force, verify, optimizer, allow_nonfinite, family, source_heads
    )
    named = sources or []
    with people_errors():
        places = o.layer_numbers(after)
        if not named:
            from growkit.checkpoint.lineage import current_checkpoint

            named = [str(current_checkpoint(Path()))]
    request = dict(
        layers=layers, method=method, overlap=overlap, after=places, every=every, block=block, slices=slices,
        seed=seed, dtype=dtype,
    )  # fmt: skip
    run("stack", named, common, request)


@app.command()
def grow(
    source: o.Source,
    like: Annotated[Optional[str], typer.Option(metavar="TARGET", rich_help_panel=o.SIZES, help="All sizes of another model: a name such as bert-base, a config.json, a checkpoint.")] = None,
    hidden: o.Hidden = None, heads: o.Heads = None, kv_heads: o.KvHeads = None, head_dim: o.HeadDim = None,
    ffn: o.Ffn = None, layers: o.Layers = None,
    depth: Annotated[str, typer.Option(metavar="stack|interleave|top|middle|identity|solar", rich_help_panel=o.DEPTH, help="Which layer each new one copies.")] = "stack",
    overlap: o.Overlap = None, after: o.After = None, every: o.Every = None, block: o.Block = None,
    slices: o.Slices = None, method: o.Method = "fpi", mapping: o.Mapping = "cyclic", noise: o.Noise = None,
    seed: o.Seed = 0, dtype: o.Dtype = None, optimizer: o.Optimizer = None,
    allow_nonfinite: o.AllowNonfinite = False, out: o.Out = None, shard_size: o.ShardSize = "5GB",
    dry_run: o.DryRun = False, as_json: o.AsJson = False, force: o.Force = False, verify: o.Verify = True,
    family: o.FamilyName = None, source_heads: o.SourceHeads = None,
) -> None:  # fmt: skip
    """Grow in width and in depth in one pass: what widen, then stack would give."""
    common = o.Common(
        out, shard_size, dry_run, as_json, force, verify, optimizer, allow_nonfinite, family, source_heads
    )
    with people_errors():
        places = o.layer_numbers(after)
    request = dict(
        like=like, hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, layers=layers, depth=depth,
        overlap=overlap, after=places, every=every, block=block, slices=slices, method=method, mapping=mapping,
        noise=noise, seed=seed, dtype=dtype,
    )  # fmt: skip
    run("grow", [source], common, request)


@app.command()
def fuse(
    sources: Annotated[list[str], Members],
    mode: Annotated[str, typer.Option(metavar="side-by-side|fpi|aki", rich_help_panel=o.HOW, help="Each in its own block, logits averaged; or the first widened, later copies from the others.")] = "side-by-side",
    hidden: o.Hidden = None, heads: o.Heads = None, kv_heads: o.KvHeads = None, head_dim: o.HeadDim = None,
    ffn: o.Ffn = None, mapping: o.Mapping = "cyclic", noise: o.Noise = None, seed: o.Seed = 0, dtype: o.Dtype = None,
    optimizer: o.Optimizer = None, allow_nonfinite: o.AllowNonfinite = False, out: o.Out = None,
    shard_size: o.ShardSize = "5GB", dry_run: o.DryRun = False, as_json: o.AsJson = False, force: o.Force = False,
    verify: o.Verify = True, family: o.FamilyName = None, source_heads: o.SourceHeads = None,
) -> None:  # fmt: skip
    """Make one model of several: side by side, or the first one widened with the others' units."""
    common = o.Common(
        out, shard_size, dry_run, as_json, force, verify, optimizer, allow_nonfinite, family, source_heads
    )
    request = dict(
        mode=mode, hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, mapping=mapping,
        noise=noise, seed=seed, dtype=dtype,
    )  # fmt: skip
    run("fuse", sources, common, request)


@app.command()
def upcycle(
    sources: Annotated[list[str], typer.Argument(metavar="DENSE [EXPERT2...]", help="A dense checkpoint; or several fine-tuned from one, which give the experts in turn.")],
    experts: Annotated[int, typer.Option(metavar="N", rich_help_panel=o.EXPERTS, help="Experts of each layer, all in all.")] = 8,
    top_k: Annotated[int, typer.Option(metavar="K", rich_help_panel=o.EXPERTS, help="Experts a token takes.")] = 2,
    granularity: Annotated[int, typer.Option(metavar="G", rich_help_panel=o.EXPERTS, help="Slices of each copy, every one an expert; N and K are multiples of it.")] = 1,
    shared: Annotated[bool, typer.Option("--shared", rich_help_panel=o.EXPERTS, help="Half of the units in an expert that every token passes; qwen2_moe always has it.")] = False,
    layers: Annotated[str, typer.Option(metavar="every|2nd|I,J,...", rich_help_panel=o.EXPERTS, help="Which layers have experts, from 1; mixtral: every.")] = "every",
    diversity: Annotated[str, typer.Option(metavar="none|noise[:S]|drop[:R]", rich_help_panel=o.EXPERTS, help="Exact copies; with noise of S (0.1) of the deviation; or with R (0.5) of the units drawn anew.")] = "none",
    router: Annotated[str, typer.Option(metavar="normal|clusters", rich_help_panel=o.EXPERTS, help="Drawn; or the centres of clusters of a text's hidden states.")] = "normal",
    text: Annotated[Optional[Path], typer.Option(metavar="FILE", rich_help_panel=o.EXPERTS, help="The text for --router clusters.")] = None,
    seed: o.Seed = 0, dtype: o.Dtype = None, allow_nonfinite: o.AllowNonfinite = False, out: o.Out = None,
    shard_size: o.ShardSize = "5GB", dry_run: o.DryRun = False, as_json: o.AsJson = False, force: o.Force = False,
    verify: o.Verify = True, family: o.FamilyName = None, source_heads: o.SourceHeads = None,
) -> None:  # fmt: skip
    """Make a mixture of experts of a dense model: llama, mistral -> mixtral, qwen2 -> qwen2_moe, qwen3 -> qwen3_moe."""
    common = o.Common(out, shard_size, dry_run, as_json, force, verify, None, allow_nonfinite, family, source_heads)
    request = dict(
        experts=experts, top_k=top_k, granularity=granularity, shared=shared, layers=layers, diversity=diversity,
        router=router, text=text, seed=seed, dtype=dtype,
    )  # fmt: skip
    run("upcycle", sources, common, request)
