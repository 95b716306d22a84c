"""`growkit skill plug`: skills put together on one base."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option, quiet
from growkit.api.public import public
from growkit.errors import RequestError

if TYPE_CHECKING:
    from growkit.skills.gates.plug_gated import Plugged
    from growkit.skills.plug import PluggedModel

GATE = "A gate before each skill"
Base = Annotated[
    w.PathLike, Argument("The model the skills are for: a folder, a .safetensors file or a hub id.", "BASE")
]
Skills = Annotated[
    Sequence[w.PathLike | tuple[w.PathLike, float]],
    Argument("Small modules: of growkit, or PEFT's; NAME= before one names it.", "SKILL[:STRENGTH]..."),
]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of general texts; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def skill_plug(
    base: Base,
    skills: Skills,
    out: w.Folder,
    *,
    form: Annotated[
        Literal["weights", "lora"],
        Option(help="the base's weights with the skills in, or one LoRA of PEFT of them.", flags=("--as",)),
    ] = "weights",
    allow_nonfinite: Annotated[bool, Option(help="Keep NaN and Inf weights as they are.")] = False,
    dtype: Annotated[
        w.DtypeName | None, Option(help="what the weights are stored as; default as the base.", metavar="TYPE")
    ] = None,
    shard_size: w.ShardSize = "5GB",
    dry_run: Annotated[
        bool, Option(help="Plan and check the weights or the LoRA, and write nothing.", panel=w.OUTPUT)
    ] = False,
    gated: Annotated[
        bool,
        Option(help="Keep the base: each sequence opens a skill or none, by a gate with a certificate.", panel=GATE),
    ] = False,
    text: Annotated[
        Sequence[w.PathLike] | w.PathLike,
        Option(
            help="General text, for which no skill should open: files or datasets; several by giving it again.",
            panel=GATE,
            metavar="GENERAL",
        ),
    ] = (),
    alpha: Annotated[
        float,
        Option(help="How often general text may open one all the same.", panel=GATE, metavar="P", within=(1e-5, 0.5)),
    ] = 0.01,
    texts: Annotated[
        int, Option(help="Look at so many general texts at most.", panel=GATE, metavar="N", within=(1, 1 << 20))
    ] = 1000,
    own: Annotated[
        Sequence[str] | str,
        Option(
            help="What a skill is for, where its folder has no gate; again for others.",
            panel=GATE,
            metavar="SKILL=DATA",
        ),
    ] = (),
    together: Annotated[
        Sequence[str] | str,
        Option(help="Two skills that may open at once; again for other pairs.", panel=GATE, metavar="ONE,OTHER"),
    ] = (),
    layer: Annotated[
        int | None,
        Option(
            help="The layer, from 1, that the gate reads; default the skills', or the middle one.",
            panel=GATE,
            metavar="L",
            within=(1, limits.LAYERS),
        ),
    ] = None,
    seed: Annotated[int, Option(help="For which texts do what.", panel=GATE, metavar="S", within=limits.SEEDS)] = 0,
    device: Annotated[w.Device, Option(help="Where to compute.", panel=GATE)] = "auto",
    force: Annotated[
        bool,
        Option(
            help="Also skills that disturb one another, and in the place of a result that is there.", panel=w.OUTPUT
        ),
    ] = False,
    begin: Begin = _quiet,
    progress: w.Progress = quiet,
    announce: Annotated[
        Callable[["PluggedModel"], None], Callback("Called before weights or a LoRA are written.")
    ] = quiet,
) -> "Plugged | PluggedModel":
    """Plug skills together on one model: into its weights, into one LoRA, or each behind a gate.

    skills: folders, each a path, 'path:strength' or (path, strength). Weights and the LoRA are base + sum of strength x
    skill, of skills of `skill learn`, in any order the same bits; strength 0 gives the base's own weights. Red pairs
    are refused without force. gated: a bundle, which is the base wherever no skill opens, of any small modules,
    which 'name=path' names: a gate reads the base's hidden states of a prompt once. Its threshold promises P(a skill
    opens) <= alpha for text that is exchangeable with the general text, by split-conformal calibration, and other
    general text confirms it.

    Returns a PluggedModel: .folder, .plan, .rank, .pairs (rho of each); of a bundle a Plugged: .folder, .said (the
    certificate), .notes. Raises RequestError or CheckpointError.
    """
    from growkit.growth.spelling import dtype_of, size_in_bytes
    from growkit.merging.prepare_merge import MergeOptions
    from growkit.skills.gates.named_skills import check_names, data_by_name, named_skills, pairs_of
    from growkit.skills.gates.plug_gated import GatedRequest, plug_gated
    from growkit.skills.plug import plug_skills

    named = named_skills(w.listed(skills))
    if not gated:
        options = MergeOptions(
            shard_bytes=size_in_bytes(shard_size), force=force, allow_nonfinite=allow_nonfinite, dry_run=dry_run,
            progress=progress,
        )  # fmt: skip
        if w.listed(text) or w.listed(own) or w.listed(together) or layer is not None:
            raise RequestError("--text, --own, --together and --layer are of a gate; give --gated, or leave them out")
        return plug_skills(base, named, out, options, as_lora=form == "lora", dtype=dtype_of(dtype), announce=announce)
    if form != "weights" or dry_run:
        raise RequestError(
            "--gated makes a bundle, whose base stays as it is; --as lora and --dry-run are of skills without a gate"
        )
    check_names(named)
    data = data_by_name(w.listed(own), "--own", "SKILL=DATA, once for each skill")
    request = GatedRequest(
        text=w.listed(text), alpha=alpha, texts=texts, own=data, together=pairs_of(w.listed(together)),
        layer=layer, seed=seed,
    )  # fmt: skip
    return plug_gated(base, named, out, request, device=device, force=force, begin=begin)
