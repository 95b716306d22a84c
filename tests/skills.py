"""Skills made up of random numbers, for tests that need one without learning it."""

from dataclasses import replace
from pathlib import Path

import torch

from growkit.skills.panel_file import open_panel
from growkit.skills.skill_file import SkillFacts, write_skill

BASE = {"name": "base", "files": {"model.safetensors": "a" * 64}}
SHAPES = {"q": ("in", 12, 10), "k": ("in", 2, 10), "up": ("ffn", 20, 10)}  # weight -> (group, out, in)


def skill_tensors(size=3, rank=5, adapter=0, seed=0, shapes=SHAPES) -> dict[str, torch.Tensor]:
    """The tensors of a skill on weights of these shapes."""
    draws = torch.Generator().manual_seed(seed)

    def columns(rows: int, count: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(rows, count, generator=draws)).Q

    tensors = {}
    for weight, (group, out, into) in shapes.items():
        own, read = min(size, out), min(size, into)
        tensors |= {f"{weight}.Q": columns(min(rank, out), own), f"{weight}.U_s": columns(out, own)}
        tensors |= {f"{group}.P": columns(min(rank, into), read), f"{group}.V_s": columns(into, read)}
        tensors[f"{weight}.R"] = torch.randn(own, read, generator=draws)
        rows = torch.randn(40, min(rank, into), generator=draws)
        tensors[f"{group}.K"] = rows.T @ rows / 40
        if adapter:
            tensors[f"{weight}.B"] = torch.zeros(out, read)
            tensors[f"{weight}.B"][:, :adapter] = torch.randn(out, adapter, generator=draws)
    return tensors


def facts(size=3, adapter=0, shapes=SHAPES, **more) -> SkillFacts:
    """What skill.json says of such a skill."""
    usual = dict(base=BASE, panel="b" * 64, sketch={"tokens": 40, "data": "c" * 64})
    weights = {weight: group for weight, (group, _, _) in shapes.items()}
    return SkillFacts(**{**usual, "size": size, "adapter": adapter, "weights": weights, **more})


def make_skill(folder, size=3, rank=5, adapter=0, seed=0, shapes=SHAPES, **more) -> Path:
    """A folder with such a skill."""
    Path(folder).mkdir(parents=True)
    write_skill(Path(folder), facts(size, adapter, shapes, **more), skill_tensors(size, rank, adapter, seed, shapes))
    return Path(folder)


def skill_of_panel(panel, folder, seed=0, size=3, adapter=0, scale=0.1, sketches=None, tokens=40, **more):
    """A folder with a random skill of a panel. sketches: K by group; random where they are not given."""
    opened = open_panel(panel)
    header, draws, tensors = opened.header, torch.Generator().manual_seed(seed), {}

    def columns(rows: int, count: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(rows, count, generator=draws, dtype=torch.float64)).Q

    for group, weights in header.groups.items():
        basis, rank = opened.input_basis(group).double(), opened.input_rank(group)
        tensors[f"{group}.P"] = columns(rank, min(size, rank))
        tensors[f"{group}.V_s"] = basis @ tensors[f"{group}.P"]
        rows = torch.randn(40, rank, generator=draws, dtype=torch.float64)
        tensors[f"{group}.K"] = rows.T @ rows / 40 if sketches is None else sketches[group]
        for weight in weights:
            left = opened.output_basis(weight).double()
            own, read = min(size, left.shape[1]), tensors[f"{group}.P"].shape[1]
            tensors[f"{weight}.Q"] = columns(left.shape[1], own)
            tensors[f"{weight}.U_s"] = left @ tensors[f"{weight}.Q"]
            tensors[f"{weight}.R"] = scale * torch.randn(own, read, generator=draws)
            if adapter:
                tensors[f"{weight}.B"] = torch.zeros(len(left), read)
                tensors[f"{weight}.B"][:, :adapter] = scale * torch.randn(len(left), adapter, generator=draws)
    said = SkillFacts(
        base={"name": header.base, "files": dict(header.files)}, panel=opened.sha256, size=size, adapter=adapter,
        sketch={"tokens": tokens, "data": None}, weights={name: one.input for name, one in header.weights.items()},
    )  # fmt: skip
    Path(folder).mkdir(parents=True)
    write_skill(Path(folder), replace(said, **more), tensors)
    return Path(folder)
