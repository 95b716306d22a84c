"""LoRA folders written by hand, as PEFT writes them, whole or with something wrong."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def lora(shapes, folder="lora", rank=4, dtype=torch.float64, change=lambda tensors: None, **content):
    """A LoRA on modules, by name -> (out, in). change: edits the tensors before they are saved."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for module, (out, into) in shapes.items():
        for part, shape in (("A", (rank, into)), ("B", (out, rank))):
            values = 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)
            tensors[f"{PREFIX}{module}.lora_{part}.weight"] = values.to(dtype)
    change(tensors)
    Path(folder).mkdir()
    save_file(tensors, Path(folder) / WEIGHTS, {"format": "pt"})
    stated = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "target_modules": "all-linear", **content}
    (Path(folder) / CONFIG).write_text(json.dumps(stated))
    return tensors


def edit(folder="lora", change=lambda tensors: None, **content):
    """Change a folder's tensors, and what its config says."""
    tensors = load_file(Path(folder) / WEIGHTS)
    change(tensors)
    save_file(tensors, Path(folder) / WEIGHTS, {"format": "pt"})
    path = Path(folder) / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
