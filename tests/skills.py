"""Skills made up of random numbers, for tests that need one without learning it."""

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


def skill_on(
    panel_folder, out, size=3, adapter=0, seed=0, strength=0.3, reads=None, sketches=None, read=40, **more
) -> Path:
    """A folder with a random skill on a panel. reads: which of the panel's input directions its data and it use; all.
    sketches: K by group, in the place of what is drawn; read: how many tokens it says that these are of."""
    panel, draws = open_panel(panel_folder), torch.Generator().manual_seed(seed)
    tensors = {}
    for weight, said in panel.header.weights.items():
        rank, width = said.rank, panel.input_rank(said.input)
        q = torch.linalg.qr(torch.randn(rank, min(size, rank), generator=draws)).Q
        tensors |= {f"{weight}.Q": q, f"{weight}.U_s": panel.output_basis(weight) @ q}
        tensors[f"{weight}.R"] = strength * torch.randn(q.shape[1], min(size, width), generator=draws)
        if adapter:
            tensors[f"{weight}.B"] = torch.zeros(panel.sides(weight)[0], min(size, width))
            tensors[f"{weight}.B"][:, :adapter] = strength * torch.randn(
                panel.sides(weight)[0], adapter, generator=draws
            )
    for group in panel.header.groups:
        rank = panel.input_rank(group)
        kept = torch.zeros(rank, 1) if reads else torch.ones(rank, 1)
        kept[reads or []] = 1.0
        rows = torch.randn(40, rank, generator=draws) * kept.T
        p = torch.linalg.qr(kept * torch.randn(rank, min(size, rank), generator=draws)).Q
        tensors |= {f"{group}.P": p, f"{group}.V_s": panel.input_basis(group) @ p, f"{group}.K": rows.T @ rows / 40}
        tensors |= {f"{group}.K": sketches[group]} if sketches else {}
    said = SkillFacts(
        base={"name": panel.header.base, "files": dict(panel.header.files)},
        panel=panel.sha256,
        size=size,
        adapter=adapter,
        sketch={"tokens": read, "data": "c" * 64},
        weights={weight: said.input for weight, said in panel.header.weights.items()},
        **more,
    )
    Path(out).mkdir(parents=True)
    write_skill(Path(out), said, tensors)
    return Path(out)
