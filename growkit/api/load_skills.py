"""A bundle of skills as a live model."""

from typing import TYPE_CHECKING, Annotated, Any

from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    import transformers


@public
def load_skills(
    bundle: Annotated[w.PathLike, Argument("A folder of growkit skill plug.", "BUNDLE")],
    *,
    base: Annotated[w.PathLike | None, Option(help="Its base, where that has moved.", metavar="BASE")] = None,
    dtype: Annotated[w.DtypeName, Option(help="what the model computes in.", metavar="TYPE")] = "float32",
) -> "transformers.PreTrainedModel":
    """The stock transformers model of a bundle's base, in eval mode, with its skills behind the gate.

    Its class, modules and weights are the base's; `forward`, `generate` and caches work as they do there, and each row
    of a batch opens its own skills or none. `model.skills` decides (`decide`), says what was decided (`last`), opens by
    name (`with model.skills.opening("sums")`; of no name: the base) and comes off (`unplug`). Raises CheckpointError
    for what is no sound bundle, RequestError for another base.
    """
    import torch

    from growkit.skills.gates.bundle_use import load_bundle

    loaded: Any = load_bundle(bundle, base, getattr(torch, dtype))
    return loaded
