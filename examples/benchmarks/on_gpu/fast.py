"""How fast a GPU trains: growkit's ways side by side, and transformers' Trainer on the same batches in the same minute."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from on_gpu.bed import Bed, free, speed, steps_of
from on_gpu.shapes import SKIPPED, Shape, settings, shapes
from on_gpu.trainer import trainer

from growkit.training import machine as machines
from growkit.training import objective, ready

STEPS = 20
SLOW = 0.40  # MFU under which the kernels of the slowest model are told
BOTH = ("gpt2-124m", "llama-350m")  # on which what growkit does by itself is measured with and without
Work = Callable[[], dict[str, Any]]


def fast(bed: Bed) -> None:
    """All models in one way, then in the next, as far as the time reaches; then the kernels of the slowest, where it is
    slow."""
    plans = {name: ways(bed, name, bed.model(name, shape.config), shape) for name, shape in shapes(bed).items()}
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in plans}
    for way in dict.fromkeys(way for plan in plans.values() for way in plan):
        for name, plan in plans.items():
            if way in plan:
                seconds, work = plan[way]
                bed.check(f"{name}, {way}", seconds, partial(_kept, found[name], way, work))
    reached: dict[str, float] = {}
    for name, measured in found.items():
        reached |= _compared(bed, name, measured)
    slowest = min(reached, key=lambda name: reached[name], default=None)
    if bed.small or (slowest and reached[slowest] < SLOW):
        name = slowest or BOTH[0]
        bed.check(f"{name}, kernels", 40, lambda: kernels(bed, bed.work / name, shapes(bed)[name]))


def ways(bed: Bed, name: str, model: Path, shape: Shape) -> dict[str, tuple[float, Work]]:
    """What is measured of a model, and the seconds that each takes at most."""
    ours = partial(speed, bed, model, STEPS, SKIPPED, **settings(bed, shape))
    theirs = partial(trainer, bed, model, shape, STEPS, SKIPPED)
    found: dict[str, tuple[float, Work]] = {
        "compiled": (60, partial(ours, compile=True)),
        "Trainer": (30, partial(theirs, compiled=False)),
        "Trainer, torch_compile": (80, partial(theirs, compiled=True)),
        "not compiled": (30, partial(ours, compile=False)),
    }
    if bed.small and name != BOTH[0]:  # a CPU takes a minute to compile
        return {way: what for way, what in found.items() if way in ("Trainer", "not compiled")}
    if name in BOTH:
        found["head whole"] = (40, partial(_within, whole_head(bed), ours))
        found["fully_shard"] = (40, partial(_within, one_divided(bed), ours))
    return found


def _kept(found: dict[str, dict[str, Any]], way: str, work: Work) -> dict[str, Any]:
    found[way] = work()
    return found[way]


def _within(context: AbstractContextManager[None], ours: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    with context:
        return ours(compile=True)


def _compared(bed: Bed, name: str, found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Say how many times as fast growkit is as the Trainer in its better way; the first losses, of the same weights on the
    same batch, have to agree. Returns the MFU that growkit reached, by the model's name, where that is known."""
    ours, theirs = (
        found.get("compiled", found.get("not compiled")),
        [said for way, said in found.items() if way.startswith("Trainer")],
    )
    if ours and theirs:
        best = max(theirs, key=lambda said: said["tokens_per_second"])
        # bfloat16 has 8 bits, and a head that is computed in pieces rounds in another order
        alike = abs(ours["first"] - best["first"]) < 0.02
        bed.say(f"{name}, of the Trainer's speed", ok=alike, ratio=ours["tokens_per_second"] / best["tokens_per_second"],
                first_losses=[ours["first"], best["first"]])  # fmt: skip
    return {name: ours["mfu"]} if ours and "mfu" in ours else {}


@contextmanager
def whole_head(bed: Bed) -> Iterator[None]:
    """All of a step's logits at once, as most loops have them."""
    with mock.patch.dict(objective.LOGITS, {bed.device: 1 << 60}):
        yield


class _Divided(machines.Machine):
    """One process, whose model fully_shard divides all the same: over itself."""

    def spread(self, model: torch.nn.Module, layers: Sequence[torch.nn.Module], shard: str = "auto") -> torch.nn.Module:
        return machines.divided(model, layers, self.device, self.precision, copies=1, size=1)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, enabled=False)

    def whole(self, model: Any, work: Callable[[], Any]) -> Any:
        return model.whole(work)


@contextmanager
def one_divided(bed: Bed) -> Iterator[None]:
    """Runs of a process that fully_shard divides over itself, instead of plain autocast."""
    dist.init_process_group("nccl" if bed.device == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)

    def machine(device: str, precision: str) -> machines.Machine:
        return _Divided(**vars(machines.this_machine(device, precision)))

    try:
        with mock.patch.object(ready, "this_machine", machine):
            yield
    finally:
        dist.destroy_process_group()


def kernels(bed: Bed, model: Path, shape: Shape) -> dict[str, Any]:
    """Write down what five steps spend their time on, kernel by kernel."""
    free()
    kind = "cuda" if bed.device == "cuda" else "cpu"
    activities = [getattr(torch.profiler.ProfilerActivity, one.upper()) for one in {"cpu", kind}]
    with torch.profiler.profile(
        activities=activities, schedule=torch.profiler.schedule(wait=8, warmup=2, active=5)
    ) as seen:
        steps_of(bed, model, 15, each=seen.step, compile=bed.device == "cuda", **settings(bed, shape))
    table = seen.key_averages().table(sort_by=f"self_{kind}_time_total", row_limit=25, max_name_column_width=90)
    file = bed.lines.with_name("kernels.txt")
    file.write_text(f"{model.name}, 5 steps\n{table}\n")
    return {"file": file.name}
