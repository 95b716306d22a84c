"""The rates that a grown checkpoint carries, for those who train it with a trainer of their own."""

from typing import TYPE_CHECKING, Annotated, Any

from growkit.api import words as w
from growkit.api.option import Option
from growkit.api.public import public

if TYPE_CHECKING:
    import torch


@public
def param_groups(
    model: "torch.nn.Module",
    checkpoint: w.PathLike,
    *,
    lr: Annotated[float, Option(help="The peak learning rate.", metavar="X", within=(0, 1e38))],
    weight_decay: Annotated[
        float, Option(help="Decoupled; none on norms and biases.", metavar="X", within=(0, 1000))
    ] = 0.1,
    eps: Annotated[float, Option(help="AdamW's eps.", metavar="E", within=(0, 1))] = 1e-8,
) -> list[dict[str, Any]]:
    """AdamW's parameter groups of a model that was loaded from a grown checkpoint, each with its own rate.

    model: a stock model, or one that is wrapped (DistributedDataParallel, torch.compile, PEFT); what needs no gradient
    is left out. checkpoint: the folder it was loaded from, whose lr_multipliers.json says the factors on lr,
    weight_decay and eps (arXiv 2602.10545) by which AdamW steps as it did on the small model; without that file all are
    1. Returns groups with "params", "lr", "weight_decay" and "eps", for torch.optim.AdamW and what is built on it: a
    scheduler multiplies the rates that it finds.

    Raises CheckpointError for a folder or file that cannot be read, RequestError where the file's names are those of
    another model.
    """
    from growkit.training.param_groups import groups_for

    return groups_for(model, checkpoint, lr, weight_decay, eps)
