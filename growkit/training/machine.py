"""Where a run computes: one device or many processes. Knows PyTorch's distributed parts; ignorant of models'
meaning.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from growkit.errors import GrowkitError, RequestError, reason_of
from growkit.models.devices import device_named

# peak bfloat16 operations per second of dense matrix products, by what CUDA calls the device
PEAKS = {"H200 NVL": 836e12, "H100 NVL": 836e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}
SHARDS = ("auto", "none", "node", "all")
PATIENCE = timedelta(days=7)  # how long processes wait while the first reads, grows or writes a whole model
T = TypeVar("T")
MOST = 1 << 20  # processes
BYTES = 18  # per parameter: weight, gradient and two moments in float32, the weight in bfloat16


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This process's place. precision: what matrices are multiplied in; weights and moments stay float32. line: where
    the processes talk over main memory and have patience, None for one process."""

    device: torch.device
    rank: int
    world: int
    precision: torch.dtype
    line: Any = None

    @property
    def peak(self) -> float | None:
        """What the device can do at best, bfloat16 operations per second; None where it is not known."""
        if self.device.type != "cuda" or self.precision != torch.bfloat16:
            return None
        return next((value for name, value in PEAKS.items() if name in torch.cuda.get_device_name(self.device)), None)

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in `precision`; sharded models do so by themselves."""
        if self.precision == torch.float32 or self.world > 1:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.world == 1:
            return list(values)
        summed = torch.tensor(list(values), dtype=torch.float64)
        summed = summed.to(self.device) if self.device.type == "cuda" else summed
        dist.all_reduce(summed)
        return summed.tolist()

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world > 1:
            dist.monitored_barrier(self.line, timeout=PATIENCE)

    def agreed(self, work: Callable[[], T]) -> T:
        """What work() returns on the first process, in all of them; the others wait. What it raises is raised in
        all."""
        if self.world == 1:
            return work()
        answer: list[Any] = [None]
        if self.is_first:
            try:
                answer = [(True, work())]
            except GrowkitError as error:
                answer = [(False, error)]
        dist.broadcast_object_list(answer, src=0, group=self.line)
        done, value = answer[0]
        if not done:
            raise value
        return value

    def copies(self, shard: str, parameters: int) -> int:
        """How many copies of a model of `parameters` there are over all processes. Raises RequestError as shard_size
        does."""
        memory = torch.cuda.get_device_properties(self.device).total_memory if self.device.type == "cuda" else None
        local = stated("LOCAL_WORLD_SIZE", 1, 1, self.world)
        return self.world // shard_size(shard, self.world, local, parameters, memory)

    def spread(self, model: torch.nn.Module, layers: Sequence[torch.nn.Module], shard: str = "auto") -> torch.nn.Module:
        """A model as its processes train it: as it is, or divided among them, replicated or sharded, with gradients
        summed.

        Its parameters need no memory yet (sharing.give_memory). Raises RequestError where the processes cannot be
        divided so.
        """
        if self.world == 1:
            return model
        copies = self.copies(shard, sum(p.numel() for p in model.parameters()))
        return divided(model, layers, self.device, self.precision, copies, self.world // copies)

    def whole(self, model: Any, work: Callable[[], Any]) -> Any:
        """What work() returns, done where the model's own weights, such as its head's, are whole on each process."""
        return work() if self.world == 1 else model.whole(work)


def divided(
    model: torch.nn.Module, layers: Sequence[torch.nn.Module], device: torch.device, precision: torch.dtype, copies: int,
    size: int,
) -> torch.nn.Module:  # fmt: skip
    """A model by PyTorch's fully_shard, layer by layer: so many copies, each over `size` processes; gradients are
    summed in float32."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # replicated is sharded over one: the same parts, the same checkpoints
    mesh = init_device_mesh(device.type, (copies, size), mesh_dim_names=("replicate", "shard"))
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    more: dict[str, Any] = {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": size > 1}
    for layer in layers:
        fully_shard(layer, **more)
    fully_shard(model, **more)
    # gradients are sums, which the loss divides by the number of tokens; gloo knows no scaled ones, and older torch
    # no way to say so
    for module in (*layers, model):
        part: Any = module
        part.set_gradient_divide_factor(1.0)
        if hasattr(module, "set_force_sum_reduction_for_comms"):
            part.set_force_sum_reduction_for_comms(True)
    model.whole = MethodType(lambda _, work: work(), model)  # type: ignore[assignment]
    register_fsdp_forward_method(model, "whole")
    return model


def shard_size(shard: str, world: int, local: int, parameters: int, memory: int | None) -> int:
    """Over how many processes one copy of a model is divided. local: processes of this node. memory: bytes of a device.

    auto: 1 where weights, gradient and two moments in float32 and a bfloat16 copy take at most 60 % of a device, which
    leaves room for activations; else over a node, or over all where nodes have one process. Raises RequestError.
    """
    if shard == "auto":
        fits = memory is None or BYTES * parameters <= 0.6 * memory
        shard = "none" if fits else "node" if local > 1 else "all"
    size = {"none": 1, "node": local, "all": world}[shard]
    if world % size:
        raise RequestError(
            f"--shard {shard}: {world} processes are no whole number of nodes of {size}; use --shard all"
        )
    return size


def stated(name: str, default: int, least: int, most: int) -> int:
    """A number that torchrun states in the environment, or the default. Raises RequestError for what is none."""
    text = os.environ.get(name, str(default))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not least <= number <= most:
        raise RequestError(
            f"the environment has {name} {text!r} where a whole number from {least} to {most} is expected; start with"
            f" torchrun, which sets it, or unset it"
        )
    return number


def this_machine(device: str, precision: str) -> Machine:
    """The device that was asked for, or the best there is; joins the other processes where torchrun started several.

    Raises RequestError for a device that is not there.
    """
    device = device_named(device).type
    world = stated("WORLD_SIZE", 1, 1, MOST)
    rank = stated("RANK", 0, 0, world - 1)
    place = torch.device(device)
    if device == "cuda":
        place = torch.device("cuda", stated("LOCAL_RANK", 0, 0, torch.cuda.device_count() - 1))
        torch.cuda.set_device(place)
    if world > 1 and not dist.is_initialized():
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")  # saving needs the CPU
        except (ValueError, RuntimeError) as error:
            raise RequestError(
                f"WORLD_SIZE is {world}, but the processes do not find each other: {reason_of(error)}; start them with"
                " torchrun, or unset WORLD_SIZE"
            ) from None
    wanted = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(precision)
    best = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    line = dist.new_group(backend="gloo", timeout=PATIENCE) if world > 1 else None
    return Machine(device=place, rank=rank, world=world, precision=wanted or best, line=line)
