"""`growkit grow`: a checkpoint grown in width and depth in one pass."""

from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.growing import grown
from growkit.api.option import Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown

LEARNED = "Maps that learn"
Like = Annotated[
    w.PathLike | None,
    Option(
        help="All sizes of another model: a name such as bert-base, a config.json, a checkpoint.",
        panel=w.SIZES,
        metavar="TARGET",
    ),
]


@public
def grow(
    source: w.Source,
    out: w.Out = None,
    *,
    like: Like = None,
    hidden: w.Hidden = None,
    heads: w.Heads = None,
    kv_heads: w.KvHeads = None,
    head_dim: w.HeadDim = None,
    ffn: w.Ffn = None,
    experts: w.Experts = None,
    top_k: w.TopK = None,
    text: Annotated[
        w.PathLike | None,
        Option(
            help="With --experts: a text; experts that do more for it get more copies.", panel=w.SIZES, metavar="FILE"
        ),
    ] = None,
    layers: w.Layers = None,
    depth: w.DepthHow = "stack",
    overlap: w.Overlap = None,
    after: w.After = None,
    every: w.Every = None,
    where: w.Where = None,
    block: w.Block = None,
    slices: w.Slices = None,
    method: w.WidthMethod = "fpi",
    mapping: w.Mapping = "cyclic",
    noise: w.Noise = None,
    keep: w.Keep = None,
    learn: Annotated[
        int | None,
        Option(
            help="Let the maps learn for so many steps on --data, from the exact ones on (LiGO).",
            panel=LEARNED,
            metavar="STEPS",
            within=(1, limits.STEPS),
        ),
    ] = None,
    data: Annotated[
        w.PathLike | None,
        Option(help="A dataset of growkit tokenize, or a .bin file of tokens.", panel=LEARNED, metavar="DATA"),
    ] = None,
    learn_lr: Annotated[
        float | None,
        Option(
            help="How far a step moves a row of a map, beside its length; default 0.02.",
            panel=LEARNED,
            metavar="X",
            within=(1e-9, 10),
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        Option(help="Windows of a step; default 16.", panel=LEARNED, metavar="N", within=(1, limits.BATCH)),
    ] = None,
    seq_len: Annotated[
        int | None,
        Option(
            help="Tokens of a window; default 128, or the model's positions.",
            panel=LEARNED,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    device: Annotated[w.Device, Option(help="Where maps learn.", panel=LEARNED)] = "auto",
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
    """Grow in width and in depth in one pass: what widen, then stack would give.

    source: folder, .safetensors file or hub id. like: instead of sizes, those of another model of the same family. The
    sizes, method, mapping and noise are those of `widen`; layers, and depth with what places them, the layers and
    method of `stack`. experts, top_k: of a mixture, copies of the experts it has, and how many a token takes then.
    text: a file; the experts that do more for it get more copies (loads the model). learn: steps for which the maps
    learn on the loss of the grown model on data before it is written, the source's weights as they are (LiGO; loads
    both models, and is not exact). Result and errors as of `widen`.
    """
    from growkit.errors import RequestError
    from growkit.growth.learning import learn_of
    from growkit.growth.prepare import Options
    from growkit.growth.request import grow_recipe
    from growkit.growth.spelling import size_in_bytes

    copies = None
    if text is not None:
        if experts is None:
            raise RequestError("--text is for more experts: give --experts too")
        from growkit.models.expert_use import copies_for  # loads transformers

        copies = copies_for(source, text, experts, seed)
    request = grow_recipe(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, layers=layers, depth=depth,
        overlap=overlap, after=after, every=every, where=where, block=block, slices=slices, method=method, mapping=mapping,
        noise=noise, keep=keep, seed=seed, dtype=dtype, like=like, experts=experts, top_k=top_k, copies=copies,
        learn=learn_of(learn, data, learn_lr, batch_size, seq_len, device),
    )  # fmt: skip
    options = Options(
        shard_bytes=size_in_bytes(shard_size), force=force, optimizer=optimizer, allow_nonfinite=allow_nonfinite,
        family=family, source_heads=source_heads, dry_run=dry_run, progress=progress, announce=announce,
    )  # fmt: skip
    return grown([source], out, request, options, verify)
