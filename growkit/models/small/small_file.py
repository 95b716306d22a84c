"""The folder of a soft mixture: small_module.json and small_module.safetensors. Knows the format and its bounds;
ignorant of training.
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.fields import Fields, Number, OneOf, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import SOFT_MIXTURE, open_state
from growkit.errors import CheckpointError
from growkit.limits import AXIS, EXPERTS
from growkit.models.small.mixtures import MOLORA, MOV, SoftMixture

SMALL, SMALL_WEIGHTS, FORMAT = SOFT_MIXTURE, "small_module.safetensors", 1
SCHEMA = Fields(
    {
        "format": OneOf([FORMAT]),
        "kind": OneOf([MOV, MOLORA]),
        "experts": Whole(1, EXPERTS),
        "rank": Whole(1, AXIS),
        "alpha": Number(1e-12, 1e12),
    },
    needed=("format", "kind", "experts"),
)


def is_small(folder: str | Path) -> bool:
    """Whether a folder holds a soft mixture."""
    return (Path(folder) / SMALL).is_file()


def small_settings(mixture: SoftMixture) -> dict[str, Any]:
    """What small_module.json says of one."""
    more = {"rank": mixture.rank, "alpha": mixture.alpha} if mixture.kind == MOLORA else {}
    return {"format": FORMAT, "kind": mixture.kind, "experts": mixture.experts, **more}


def read_small(folder: str | Path) -> SoftMixture:
    """What a folder holds. Raises CheckpointError where that cannot be read."""
    path = Path(folder) / SMALL
    said = checked(read_json(path), SCHEMA, path)
    if said["kind"] == MOLORA:
        checked(said, Fields(SCHEMA.kinds, needed=("rank", "alpha")), path)
    return SoftMixture(
        kind=said["kind"], experts=said["experts"], rank=said.get("rank", 0), alpha=said.get("alpha", 0.0)
    )


def put_small(model: Any, folder: str | Path) -> None:
    """Put a folder's modules on the model they were made for. Raises CheckpointError for a file that does not hold
    theirs, RequestError for a mixture of experts."""
    mixture, path = read_small(folder), Path(folder) / SMALL_WEIGHTS
    before = {id(parameter) for parameter in model.parameters()}
    with closing(open_state(path)) as stored:
        mixture.put_on(model)  # shapes alone, until the file has been held to them
        added = {name: p for name, p in model.named_parameters() if id(p) not in before}
        for name in sorted(added.keys() ^ stored.tensors.keys()):
            kind = "lacks" if name in added else "has, beyond what the model takes,"
            raise CheckpointError(f"{str(path)!r} {kind} {name!r}; it was made for another model")
        for name, parameter in added.items():
            tensor, shape = stored.tensors[name], tuple(parameter.shape)
            if tensor.shape != shape or tensor.dtype != torch.float32:
                dtype = str(tensor.dtype).removeprefix("torch.")
                raise CheckpointError(
                    f"{str(path)!r} has {name!r} as {dtype} {list(tensor.shape)} where the model asks for float32"
                    f" {list(shape)}; it was made for another model"
                )
            home, _, own = name.rpartition(".")
            setattr(model.get_submodule(home), own, torch.nn.Parameter(stored.whole(name), requires_grad=False))
