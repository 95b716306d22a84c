"""A run as curves: what its metrics.jsonl and run.json say, checked line by line. Knows those two files; ignorant of
what is made of them, and of torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from growkit.checkpoint.fields import AnyOf, Fields, ListOf, MapOf, Null, Number, Text, Whole, checked
from growkit.checkpoint.small_files import parse_json, read_bytes, read_json
from growkit.errors import CheckpointError, RequestError
from growkit.limits import LAYERS, STEPS

METRICS, RUN = "metrics.jsonl", "run.json"
# settings that decide what a validation loss is a loss on
MEASURE = ("seq_len", "eval_tokens")


LARGEST = 4 << 30  # bytes of a metrics.jsonl
CURE = "mend it or take it out"
LINE = Fields({"kind": Text()}, needed=("kind",))
NATS = Number(0.0, 1e3)
INFORMATION = Fields(
    {"layers": ListOf(Whole(0, LAYERS)), "nats": ListOf(NATS), "most": NATS}, needed=("layers", "nats", "most")
)
POINT = Fields(
    {
        "step": Whole(0, STEPS),
        "loss": Number(-1e9, 1e9),
        "flops": Number(0.0, 1e40),
        "elapsed_s": Number(0.0, 1e12),
        "domains": MapOf(Number(-1e9, 1e9)),
        "expert_load": ListOf(ListOf(Number(0.0, 1e9), least=2)),
        "router_entropy": ListOf(Number(0.0, 1e9)),
        "dead_experts": ListOf(ListOf(Whole())),
        "expert_domains": INFORMATION,
    },
    needed=("step", "loss", "flops", "elapsed_s"),
)
SETTINGS = Fields(
    {
        "steps": Null(Whole(0, STEPS)),
        "hashes": Null(Fields({})),
        "teacher": Null(AnyOf((Text(), MapOf(Text())))),
    }
)
RUN_FIELDS = Fields({"settings": Null(SETTINGS)})


class Cost(NamedTuple):
    """What was spent: floating-point operations that were executed, and seconds."""

    flops: float
    seconds: float


class Point(NamedTuple):
    """A loss, and where in the run it was measured."""

    step: int
    loss: float
    cost: Cost
    domains: Mapping[str, float] = MappingProxyType({})  # of tagged text, the loss of each


class ExpertLoads(NamedTuple):
    """How a mixture's routers spread the last validation text. most, least: load of an expert, 1 is even, the extremes
    over layers. dead: how many experts hardly any token took. entropy: of a router, as a share of an undecided one's,
    the mean."""

    most: float
    least: float
    dead: int
    entropy: float


class ToldDomains(NamedTuple):
    """What the experts that tokens of the last validation text take tell of their domains. layer: counted from 0. nats:
    mutual information of expert and domain; most: what it can be."""

    layer: int
    nats: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A run: its losses in training and on validation text, in order of steps, what run.json says, and for a mixture of
    experts how it routed at the end, and what that tells of domains."""

    name: str
    path: Path
    train: tuple[Point, ...]
    val: tuple[Point, ...]
    settings: dict[str, Any]
    experts: ExpertLoads | None = None
    told: tuple[ToldDomains, ...] = ()

    @property
    def final(self) -> Point:
        """The last validation."""
        return self.val[-1]

    @property
    def cost(self) -> Cost:
        """All that the run spent."""
        return max((point.cost for point in (*self.train[-1:], *self.val[-1:])), default=Cost(0.0, 0.0))

    def reach(self, loss: float) -> Cost | None:
        """What was spent when the validation loss first came down to `loss`, on straight lines between validations.

        The first validation counts with all that was spent until then. None where the run never got there.
        """
        before = None
        for point in self.val:
            if point.loss <= loss:
                if before is None:
                    return point.cost
                share = (before.loss - loss) / (before.loss - point.loss)
                return Cost(*(a + share * (b - a) for a, b in zip(before.cost, point.cost)))
            before = point
        return None


def read_run(path: str | Path) -> Curve:
    """A run from its folder. Raises CheckpointError for what is no run, and for a line that cannot be read, by its
    number."""
    folder = Path(path)
    if not folder.exists():
        raise CheckpointError(f"{str(path)!r} does not exist; name the --out folder of a growkit pretrain")
    if not (folder / RUN).is_file():
        raise CheckpointError(f"{str(path)!r} is no run: it has no {RUN}; name the --out folder of a growkit pretrain")
    metrics = folder / METRICS
    if not metrics.is_file():
        raise CheckpointError(f"{str(path)!r} has no {METRICS}: nothing was trained in it yet")
    lines = read_bytes(metrics, LARGEST).split(b"\n")
    content = checked(read_json(folder / RUN), RUN_FIELDS, folder / RUN)
    curves: dict[str, list[Point]] = {"train": [], "val": []}
    experts: ExpertLoads | None = None
    told: tuple[ToldDomains, ...] = ()
    for number, line in enumerate(lines, start=1):
        read = _read_line(line, f"line {number} of {str(metrics)!r}") if line.strip() else None
        if read is None:
            continue
        kind, point, routed, of_domains = read
        experts, told = routed or experts, of_domains or told
        # a resumed run has been here before, and what it says now counts: its steps tell, which otherwise only rise
        restarted = kind == "train" and curves["train"] and curves["train"][-1].step >= point.step
        for points in curves.values() if restarted else [curves[kind]]:
            while points and points[-1].step >= point.step:
                points.pop()
        curves[kind].append(point)
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name
    return Curve(
        name=name,
        path=folder,
        train=tuple(curves["train"]),
        val=tuple(curves["val"]),
        settings=content.get("settings") or {},
        experts=experts,
        told=told,
    )


def _read_line(line: bytes, where: str) -> tuple[str, Point, ExpertLoads | None, tuple[ToldDomains, ...]] | None:
    """(kind, point, what it says of experts, and what these tell of domains) of a line of metrics; None for a line that
    holds no loss."""
    try:
        content = parse_json(line)
    except ValueError:
        raise CheckpointError(f"{where} is no valid JSON; mend it or take it out") from None
    metrics = checked(content, LINE, where, CURE)
    if metrics["kind"] not in ("train", "val"):
        return None
    metrics = checked(metrics, POINT, where, CURE)
    domains = {name: float(loss) for name, loss in metrics.get("domains", {}).items()}
    point = Point(metrics["step"], float(metrics["loss"]), _cost(metrics), domains)
    return metrics["kind"], point, _experts(metrics), _told(metrics)


def _cost(metrics: dict[str, Any]) -> Cost:
    return Cost(float(metrics["flops"]), float(metrics["elapsed_s"]))


def _experts(metrics: dict[str, Any]) -> ExpertLoads | None:
    """What a line says of experts; None where it does not speak of them."""
    loads, entropies = metrics.get("expert_load"), metrics.get("router_entropy")
    if not loads or not entropies:
        return None
    every = [load for row in loads for load in row]
    undecided = math.log(len(loads[0]))
    spread = sum(entropies) / len(entropies) / undecided
    return ExpertLoads(max(every), min(every), len(metrics.get("dead_experts", [])), spread)


def _told(metrics: dict[str, Any]) -> tuple[ToldDomains, ...]:
    """What a line says of experts and domains, layer by layer."""
    said = metrics.get("expert_domains", {"layers": [], "nats": [], "most": 0.0})
    return tuple(ToldDomains(layer, nats, said["most"]) for layer, nats in zip(said["layers"], said["nats"]))


def check_comparable(curves: list[Curve]) -> None:
    """Refuse runs whose validation losses are on different things, as far as run.json says. Raises RequestError."""
    first = curves[0]
    for curve in curves[1:]:
        one, other = _measure(first), _measure(curve)
        for key in sorted(one.keys() & other.keys()):
            if one[key] != other[key]:
                raise RequestError(
                    f"{first.name!r} and {curve.name!r} were validated on different data: {key} {one[key]!r} and"
                    f" {other[key]!r}; only losses on the same tokens can be compared"
                )


def _measure(curve: Curve) -> dict[str, Any]:
    """What run.json says of the tokens that a run was validated on."""
    hashes = curve.settings.get("hashes")
    # runs of other checkpoints and teachers are what is compared; of other data they are not
    data = {}
    if isinstance(hashes, dict):
        data = {f"hashes.{key}": hashes[key] for key in ("data", "val") if key in hashes}
        data["hashes.domains"] = hashes.get("domains", "none")  # tags decide which windows are measured
    own = {key: curve.settings[key] for key in MEASURE if key in curve.settings}
    return {key: value for key, value in {**own, **data}.items() if value is not None}
