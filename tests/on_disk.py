"""Models on disk: saved, fine-tuned, linked, edited, read back; and folders that stand where a result should go."""

import json
import shutil
from pathlib import Path

import tiny
import torch
from safetensors.torch import load_file, save_file


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not KeyError}))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def checkpoint(folder):
    """What --force may replace."""
    Path(folder).mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (Path(folder) / name).write_text("old")


def thesis(folder):
    """What nothing may touch."""
    Path(folder).mkdir(parents=True)
    (Path(folder) / "thesis.txt").write_text("years of work")


def saved(family: str, folder: Path, **changes):
    """A tiny model on disk, with AdamW state that went on for a while."""
    model = tiny.make(family, dtype=torch.float32, **changes)
    model.save_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, parameter in tiny.stored(model, dict(model.named_parameters())).items():
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{name}.{moment}"] = torch.rand(parameter.shape, generator=generator) - (moment == "exp_avg") / 2
        state[f"{name}.step"] = torch.tensor(1000.0)
    save_file(state, folder / "adam.safetensors")
    return model, state


def written(folder: Path) -> dict[str, bytes]:
    """The files of a result; the record and the card tell of different commands."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("growkit.json", "README.md")
    }


def fine_tune(folder, names="abc", family="llama", dtype=torch.float64, size=0.05, **changes):
    """A base and models that lie a little way off, each saved under its name."""
    model = tiny.make(family, dtype=dtype, **changes)
    model.save_pretrained(folder / "base")
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for member in names:
        generator = torch.Generator().manual_seed(ord(member))
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = (start[name].double() + size * noise).to(dtype)
        model.save_pretrained(folder / member)


def linked(models, tmp_path, monkeypatch):
    """A new current folder in which the models stand under their names."""
    monkeypatch.chdir(tmp_path)
    for path in models.iterdir():
        Path(path.name).symlink_to(path)
    return tmp_path


def copied(models, tmp_path, monkeypatch):
    """A new current folder in which copies of the models, which may be changed, stand under their names."""
    monkeypatch.chdir(shutil.copytree(models, tmp_path, dirs_exist_ok=True))


def state(folder):
    tensors = {}
    for path in Path(folder).glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def old_words(tensors, copied=True):
    """BERT's first names: gamma and beta, and a copy of the head's bias."""
    for name in list(tensors):
        for old, new in (("gamma", "weight"), ("beta", "bias")):
            if name.endswith(f"LayerNorm.{new}"):
                tensors[name.replace(f"LayerNorm.{new}", f"LayerNorm.{old}")] = tensors.pop(name)
    if copied:
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
