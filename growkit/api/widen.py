"""`growkit widen`: a checkpoint grown in width."""

from typing import TYPE_CHECKING

from growkit.api import words as w
from growkit.api.growing import grown
from growkit.api.option import quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown


@public
def widen(
    source: w.Source,
    out: w.Out = None,
    *,
    hidden: w.Hidden = None,
    heads: w.Heads = None,
    kv_heads: w.KvHeads = None,
    head_dim: w.HeadDim = None,
    ffn: w.Ffn = None,
    method: w.WidthMethod = "fpi",
    mapping: w.Mapping = "cyclic",
    noise: w.Noise = None,
    keep: w.Keep = None,
    seed: w.Seed = 0,
    dtype: w.Dtype = None,
    optimizer: w.StateBeside = "auto",
    allow_nonfinite: w.AllowNonfinite = False,
    shard_size: w.ShardSize = "5GB",
    dry_run: w.DryRun = False,
    force: w.Force = False,
    verify: w.Verify = False,
    family: w.FamilyName = None,
    source_heads: w.SourceHeads = None,
    progress: w.Progress = quiet,
    announce: w.AnnouncePlan = quiet,
) -> "Grown":
    """Grow a checkpoint in width: hidden size, heads, head size, feed-forward size, alone or together.

    source: folder, .safetensors file or hub id. out: the folder to make; without it one in the current folder, named by
    what changed. Sizes are numbers of units; those that are left out keep their ratio, or stay. method "fpi" (Net2Net's
    and bert2BERT's function-preserving initialisation) keeps the function, "aki" takes new units from the layer above;
    noise splits what read copies share, relative to it. optimizer: AdamW's state, which grows along: "auto" takes what
    a run left beside the source; "none" or None nothing. The same request with the same seed gives the same bytes.

    Returns a Grown: .folder, .plan, and with verify .report, or .unverified, the reason why there is none. With dry_run
    only .plan is made. Raises CheckpointError or RequestError, having written nothing and touched nothing.
    """
    from growkit.growth.prepare import Options
    from growkit.growth.request import recipe
    from growkit.growth.spelling import size_in_bytes

    request = recipe(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, method=method, mapping=mapping,
        noise=noise, keep=keep, seed=seed, dtype=dtype,
    )  # fmt: skip
    options = Options(
        shard_bytes=size_in_bytes(shard_size), force=force, optimizer=optimizer, allow_nonfinite=allow_nonfinite,
        family=family, source_heads=source_heads, dry_run=dry_run, progress=progress, announce=announce,
    )  # fmt: skip
    return grown([source], out, request, options, verify)
