"""A delta as a LoRA that stock PEFT loads: adapter_model.safetensors and adapter_config.json. Knows which layers a LoRA
may be on, and what PEFT will call them; ignorant of how a delta is read and of how the folder comes to be.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG
from growkit.checkpoint.stream import is_finite, write_blocks
from growkit.checkpoint.writer import layout, write_json
from growkit.errors import CheckpointError
from growkit.families import Family
from growkit.growth.source_headers import Headers, architecture_of
from growkit.maps.notation import READ
from growkit.merging.lora_tensors import PREFIX, A, B
from growkit.merging.merge_plan import MergePlan
from growkit.merging.merger import Merger
from growkit.merging.operators.subspace import low_rank
from growkit.models.stock import parameter_names
from growkit.operators.seeds import generator

Factors = tuple[str, torch.Tensor, torch.Tensor]  # module, A (r, in), B (out, r)


def save_low_rank(merger: Merger, folder: Path, rank: int, base: str) -> dict[str, float]:
    """Write the one member's delta as a LoRA of the linear layers; returns each module's relative Frobenius error.

    Modules go by the names that the base has in stock transformers, whatever its file calls them. One tensor is held at
    a time; A and B are float32. Raises CheckpointError where transformers has no such model.
    """
    plan = merger.plan
    transposed = linears(plan)
    called, targets = module_names(plan, base)
    tensors = [tensor for tensor in plan.tensors if tensor.stem in transposed]
    sides = {called[tensor.stem]: tensor.shape[::-1] if transposed[tensor.stem] else tensor.shape for tensor in tensors}
    errors: dict[str, float] = {}

    def factors() -> Iterator[Factors]:
        for tensor in tensors:
            delta = torch.cat(list(merger.deltas(tensor, 0)))
            delta = delta.T if transposed[tensor.stem] else delta
            b, a = low_rank(delta, rank, generator(plan.request.seed, f"rank/{tensor.stem}"))
            module = called[tensor.stem]
            errors[module] = float((delta - b @ a).norm() / delta.norm().clamp_min(1e-30))
            yield module, a, b

    write_factors(folder, sides, rank, factors())
    architecture = (plan.config.get("architectures") or [""])[0]
    task = "CAUSAL_LM" if "CausalLM" in architecture else None
    said = {"task_type": task, "base_model_name_or_path": base}
    write_json(folder / ADAPTER_CONFIG, {**said, **lora_settings(rank, rank, targets, any(transposed.values()))})
    return errors


def write_factors(folder: Path, sides: Mapping[str, Sequence[int]], rank: int, factors: Iterable[Factors]) -> None:
    """Put A and B of modules into PEFT's file of weights, float32, those of a smaller rank filled with zeros.

    sides: (out, in) of each module, in the order they lie. factors: module, A (r, in) and B (out, r) of each, in any
    order, one in memory at a time. Raises CheckpointError for NaN and Inf.
    """
    entries: list[tuple[str, torch.dtype, tuple[int, ...]]] = []
    for module, (out, into) in sides.items():
        name = PREFIX + module
        entries += [(name + A, torch.float32, (rank, into)), (name + B, torch.float32, (out, rank))]

    def work() -> Iterator[tuple[list[tuple[str, int]], list[tuple[int, Callable[[], torch.Tensor]]]]]:
        for module, a, b in factors:
            more = rank - len(a)
            for part, matrix in ((A, pad(a, (0, 0, 0, more))), (B, pad(b, (0, more)))):
                whole = matrix.float().contiguous()
                if not is_finite(whole):
                    raise CheckpointError(f"a LoRA of {module!r} would hold NaN or Inf; make what it is of again")
                yield [(PREFIX + module + part, 4)], [(0, lambda whole=whole: whole)]  # type: ignore[misc]

    write_blocks(work(), folder, *layout(entries, 1 << 62, ADAPTER))


def lora_settings(rank: int, alpha: int, targets: Sequence[str], across: bool) -> dict[str, Any]:
    """What adapter_config.json says of a LoRA. across: whether weights are stored (in, out)."""
    return {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(targets), "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": across, "use_rslora": False, "use_dora": False, "modules_to_save": None,
        "rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True,
    }  # fmt: skip


def linears(plan: MergePlan) -> dict[str, bool]:
    """stem -> whether it is stored (in, out), of the linear layers inside the model's layers."""
    assert plan.base is not None
    architecture = architecture_of(plan.family, plan.base)
    transposed = {}
    for tensor in plan.tensors:
        dimensions = plan.family.axes_of(tensor.names[0], architecture)
        if (
            len(dimensions) == 2
            and plan.family.layer_of(tensor.names[0]) is not None
            and any(d.role == READ for d in dimensions)
        ):
            transposed[tensor.stem] = dimensions[0].role == READ
    return transposed


def module_names(plan: MergePlan, base: str) -> tuple[dict[str, str], list[str]]:
    """(stem -> what the module is called in the stock model that the base's config names, target_modules for PEFT).

    Targets are the last parts of names, or whole names where other modules end alike, as in BERT's head.
    """
    assert plan.base is not None
    return live_modules(plan.family, plan.base, linears(plan), base)


def live_modules(
    family: Family, headers: Headers, stems: Iterable[str], label: str
) -> tuple[dict[str, str], list[str]]:
    """The same for linear layers of a checkpoint, by the stems of their weights. label: the checkpoint's, for
    messages."""
    named = architecture_of(family, headers)
    live = parameter_names({**headers.config, "architectures": [named] if named else None}, label)
    by_stem = {family.stem(name): name for name in live}
    called = {stem: by_stem.get(stem, stem).removesuffix(".weight") for stem in stems}
    whole = {*called.values()}
    ends = {name.rpartition(".")[2] for name in whole}
    others = {name.removesuffix(".weight") for name in live if name.endswith(".weight")} - whole
    alike = any(name.rpartition(".")[2] in ends for name in others)
    return called, sorted(whole if alike else ends)
