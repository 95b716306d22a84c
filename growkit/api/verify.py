"""`growkit verify`: whether two checkpoints compute the same."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.models.verify import Verification

Before = Annotated[
    w.PathLike | Sequence[w.PathLike],
    Argument("The checkpoint before; several: their mean logits.", "SRC", may_lack=True),
]
After = Annotated[w.PathLike, Argument("The checkpoint after.", "DST")]


@public
def verify(
    source: Before,
    target: After,
    *,
    text: Annotated[
        w.PathLike | None, Option(help="A file of real text; default random tokens.", panel=None, metavar="FILE")
    ] = None,
    tolerance: Annotated[
        float | None,
        Option(
            help="Largest difference over the largest value; default by exactness and dtype.",
            panel=None,
            metavar="X",
            within=(0, 1e9),
        ),
    ] = None,
    seed: Annotated[
        int, Option(help="For the random tokens and the masks.", panel=None, metavar="S", within=limits.SEEDS)
    ] = 0,
    family: w.FamilyName = None,
    source_heads: w.SourceHeads = None,
    adapter: Annotated[
        w.PathLike | None,
        Option(
            help="A small module to check against SRC, and DST against SRC with it; without SRC what it does to DST.",
            panel=None,
            metavar="FOLDER",
        ),
    ] = None,
) -> "Verification":
    """Run two checkpoints on the same tokens in stock transformers and compare what comes out; exit 1 if too far apart.

    Logits are compared, and hidden states where there is no head. source: one checkpoint, or several, whose logits are
    then averaged. target: what was made of it. text: tokenised by the source's tokenizer. adapter: a small module on
    the source, checked against it first (hash, names, shapes, finite numbers), such as `apply` made target of; where
    source is empty, target is its base, and how far it moves that is measured.

    Returns a Verification: its figures, and .ok. Raises CheckpointError or RequestError for what cannot be loaded or
    compared.
    """
    from growkit.errors import RequestError

    if adapter is not None:
        from growkit.merging.verify_module import verify_module

        return verify_module(adapter, source or (), target, text, tolerance, seed, family, source_heads)
    if not source:
        raise RequestError("verify compares two checkpoints: name the one before and the one after")
    from growkit.models.verify import verify as compare

    return compare(source, target, text, tolerance, seed, family, source_heads)
