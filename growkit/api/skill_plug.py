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
        Literal["lora"] | None,
        Option(help="one LoRA of PEFT that carries all of them, instead of weights.", panel=w.HOW, flags=("--as",)),
    ] = None,
    allow_nonfinite: Annotated[bool, Option(help="Keep NaN and Inf weights as they are.", panel=w.HOW)] = False,
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
    pooling: Annotated[
        Literal["mean", "last"] | None,
        Option(help="of a prompt's tokens; default the skills', or mean.", panel=GATE),
    ] = None,
    seed: Annotated[int, Option(help="For which texts do what.", panel=GATE, metavar="S", within=limits.SEEDS)] = 0,
    device: Annotated[w.Device, Option(help="Where to compute.", panel=GATE)] = "auto",
    shard_size: w.ShardSize = "5GB",
    dry_run: w.DryRun = False,
    force: Annotated[
        bool, Option(help="Replace a result that is there; plug skills that disturb one another.", panel=w.OUTPUT)
    ] = False,
    begin: Begin = _quiet,
    progress: w.Progress = quiet,
    announce: w.AnnounceMerge = quiet,
) -> "Plugged | PluggedModel":
    """Plug skills into one model: into its weights, as one LoRA, or each behind a gate, which keeps the base elsewhere.

    skills: folders, each a path, 'name=path:strength' or (path, strength). Without a gate they are of growkit skill
    learn and are added: base + the sum of strength x skill, the same in any order; the base's own files stay as they
    are, and strength 0 gives its weights again, bit for bit. Skills that disturb one another by rho above 0.3 are
    refused. A gate takes any small module. It reads the base's hidden states of a prompt once; its threshold promises
    P(a skill opens) <= alpha for text that is exchangeable with the general text, by split-conformal calibration, and
    other general text confirms it.

    Returns a PluggedModel: .folder, .rank of the LoRA, .pairs; or with gated a Plugged: .folder, .said (the
    certificate), .notes. Raises RequestError or CheckpointError.
    """
    from growkit.skills.gates.named_skills import named_skills, own_data, pairs_of
    from growkit.skills.gates.plug_gated import GatedRequest, plug_gated

    named = named_skills(skills)
    if not gated:
        from growkit.growth.spelling import size_in_bytes
        from growkit.merging.prepare_merge import MergeOptions
        from growkit.skills.plug import LORA, plug_skills

        given = {"text": text, "own": own, "together": together, "layer": layer, "pooling": pooling}
        strange = next((f"--{name}" for name, value in given.items() if value not in (None, ())), None)
        if strange is not None:
            raise RequestError(f"{strange} is for a gate; give --gated too")
        if form not in (None, LORA):
            raise RequestError(f"--as {form!r} should be {LORA}")
        options = MergeOptions(
            shard_bytes=size_in_bytes(shard_size), force=force, allow_nonfinite=allow_nonfinite, dry_run=dry_run,
            progress=progress, announce=announce,
        )  # fmt: skip
        return plug_skills(base, named, out, options, as_lora=form == LORA)
    if form is not None or dry_run:
        word = "--as" if form is not None else "--dry-run"
        raise RequestError(
            f"{word} is for skills without a gate, which is measured and is no weight; leave --gated out"
        )
    request = GatedRequest(
        text=_listed(text), alpha=alpha, texts=texts, own=own_data(_listed(own)), together=pairs_of(_listed(together)),
        layer=layer, pooling=pooling, seed=seed,
    )  # fmt: skip
    return plug_gated(base, named, out, request, device=device, force=force, begin=begin)


def _listed(words):  # type: ignore[no-untyped-def]
    return list(words) if isinstance(words, Sequence) and not isinstance(words, str) else [words]
