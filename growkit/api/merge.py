"""`growkit merge`: models fine-tuned from one base made one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.growing import grown
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown
    from growkit.merging.merge import Merged

METHOD, WHAT = "Method", "What to merge"
MergeMethod = Literal[
    "dare", "task-arithmetic", "ties", "dare-ties", "della", "breadcrumbs", "average", "slerp", "tsv", "iso-c"
]
Weight = float | Sequence[float] | Mapping[str, float | Sequence[float]]
Members = Annotated[
    Sequence[w.PathLike | tuple[w.PathLike, Weight]] | None,
    Argument(
        "Fine-tuned models: folders, .safetensors files, hub ids, BASE+DELTA; weight 1 where none is given.",
        "M1[:WEIGHT] M2[:WEIGHT]...",
        may_lack=True,
    ),
]


@public
def merge(
    members: Members = None,
    out: w.Out = None,
    *,
    recipe: Annotated[
        w.PathLike | None,
        Option(
            help="A recipe in mergekit's YAML, in place of members, base, method; its plan says what differs in value.",
            panel=WHAT,
            metavar="FILE.yml",
        ),
    ] = None,
    base: Annotated[
        w.PathLike | None,
        Option(help="What they were fine-tuned from; average and slerp can do without.", panel=WHAT, metavar="BASE"),
    ] = None,
    vocab: Annotated[
        Literal["same", "base", "tokens"],
        Option(
            help="Where vocabularies differ: refuse; keep the base's and match rows by token id; or by token.",
            panel=WHAT,
        ),
    ] = "same",
    body: Annotated[
        bool, Option(help="Merge the body that all share, whatever their heads; the base's head stays.", panel=WHAT)
    ] = False,
    method: Annotated[
        MergeMethod, Option(help="how deltas are thinned and made one.", panel=METHOD, metavar="METHOD")
    ] = "dare",
    drop: Annotated[
        float | None,
        Option(
            help="dare, dare-ties: probability that an element of a delta is dropped; the others are divided by 1 - P."
            " Default 0.5.",
            panel=METHOD,
            metavar="P",
            within=(0, 1),
        ),
    ] = None,
    density: Annotated[
        float | None,
        Option(
            help="ties: share of the largest kept, default 0.2; della: mean probability to keep, 0.7; breadcrumbs: share"
            " kept, 0.1.",
            panel=METHOD,
            metavar="D",
            within=(0, 1),
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        Option(
            help="della: from density - E for the smallest of a row to density + E for the largest; default 0.07.",
            panel=METHOD,
            metavar="E",
            within=(0, 1),
        ),
    ] = None,
    gamma: Annotated[
        float | None,
        Option(
            help="breadcrumbs: share of the largest of a tensor that is left out too; default 0.01.",
            panel=METHOD,
            metavar="G",
            within=(0, 1),
        ),
    ] = None,
    scale: Annotated[
        float,
        Option(
            help="What the merged delta is multiplied by before it is added to the base.",
            panel=METHOD,
            metavar="L",
            within=(-limits.WEIGHT, limits.WEIGHT),
        ),
    ] = 1.0,
    seed: Annotated[
        int, Option(help="For what is dropped by chance.", panel=METHOD, metavar="S", within=limits.SEEDS)
    ] = 0,
    drop_vectors: Annotated[
        bool, Option(help="Drop by chance in norms and biases too: few numbers, so much noise.", panel=METHOD)
    ] = False,
    dtype: Annotated[
        w.DtypeName | None, Option(help="what is stored; default as the base.", panel=METHOD, metavar="TYPE")
    ] = None,
    allow_nonfinite: Annotated[bool, Option(help="Merge NaN and Inf weights as they are.", panel=METHOD)] = False,
    shard_size: w.ShardSize = "5GB",
    dry_run: w.DryRun = False,
    force: w.Force = False,
    progress: w.Progress = quiet,
    announce: w.AnnounceMerge = quiet,
) -> "Merged | Grown":
    """Merge models fine-tuned from one base: base + scale x what they learned, thinned and weighed as the method says.

        theta = base + scale * C({(w_t, S(theta_t - base))})

    members: each a path, 'path:weight' or (path, weight). A weight may be a gradient over the layers, [0, 1], or depend
    on tensors' names, {"self_attn": [0, 1], "*": 0.5}. recipe: a file of mergekit's. out: the folder to make; without
    it one in the current folder. method: a row of growkit.merging.methods.METHODS, each with its paper; drop, density,
    epsilon and gamma belong to some of them. body: merge the base models alone, so that classes may differ; notes tell
    what was left. The same request with the same seed gives the same bytes, in whatever order members are named.

    Returns a Merged: .folder and .plan, with dry_run only the plan; of a recipe by passthrough a Grown, as stack.
    Raises CheckpointError or RequestError, having written nothing and touched nothing.
    """
    from growkit.growth.spelling import dtype_of, size_in_bytes
    from growkit.merging.merge import merge as carry_out
    from growkit.merging.methods import merge_request
    from growkit.merging.prepare_merge import MergeOptions, weighted_paths

    if recipe is not None:
        given = {"members": members, "--base": base, "--drop": drop, "--density": density, "--epsilon": epsilon,
                 "--gamma": gamma, "--drop-vectors": drop_vectors, "--scale": scale != 1, "--vocab": vocab != "same",
                 "--method": method != "dare", "--body": body}  # fmt: skip
        return _by_recipe(
            Path(recipe), [name for name, value in given.items() if not (value is None or value is False)], out, seed,
            dtype,
            dict(shard_bytes=size_in_bytes(shard_size), force=force, allow_nonfinite=allow_nonfinite, dry_run=dry_run,
                 progress=progress, announce=announce),
        )  # fmt: skip
    named = weighted_paths(w.listed(members or ()))
    request = merge_request(
        tuple(weight for _, weight in named), base is not None, method, scale=scale, seed=seed, vocab=vocab,
        drop_vectors=drop_vectors, dtype=dtype_of(dtype), drop=drop, density=density, epsilon=epsilon, gamma=gamma,
        body=body,
    )  # fmt: skip
    options = MergeOptions(
        shard_bytes=size_in_bytes(shard_size), force=force, allow_nonfinite=allow_nonfinite, dry_run=dry_run,
        progress=progress, announce=announce,
    )  # fmt: skip
    return carry_out([path for path, _ in named], base, out, request, options)


def _by_recipe(
    path: Path, given: Sequence[str], out: w.PathLike | None, seed: int, dtype: str | None, how: dict[str, Any]
) -> "Merged | Grown":
    """A merge, or for passthrough a stack, as a recipe says. given: what the recipe says itself and was asked too."""
    from growkit.errors import RequestError
    from growkit.growth.spelling import dtype_of
    from growkit.merging.merge import merge as carry_out
    from growkit.merging.mergekit import read_recipe, request_of
    from growkit.merging.prepare_merge import MergeOptions

    if given:
        raise RequestError(f"--recipe says what is merged and how; leave {given[0]} out")
    recipe = read_recipe(path)
    if not recipe.slices:
        return carry_out(
            recipe.models, recipe.base, out, request_of(recipe, seed, dtype_of(dtype)), MergeOptions(**how)
        )
    from growkit.growth.prepare import Options
    from growkit.growth.request import stack_recipe

    request = stack_recipe(slices=recipe.slices, seed=seed, dtype=dtype or recipe.dtype)
    return grown(recipe.models, out, request, Options(**how), False)
