"""Skills made up of random numbers, for tests that need one without learning it."""

from pathlib import Path

import torch

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
