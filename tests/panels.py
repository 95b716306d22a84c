"""Small panels of tiny models in Llama's layout, made here by plain linear algebra."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from growkit.checkpoint.headers import file_hash
from growkit.skills.panel_file import C0, K, U, V, write_panel
from growkit.skills.panel_header import DATA, PanelHeader, PanelWeight

READS = {
    "self_attn.input": ("q_proj", "k_proj", "v_proj"),
    "self_attn.o_proj.input": ("o_proj",),
    "mlp.input": ("gate_proj", "up_proj"),
    "mlp.down_proj.input": ("down_proj",),
}


def plain_panel(base: Path, out: Path, rank: int = 8, text: bool = True, scale: str = "absolute") -> PanelHeader:
    """A panel of all linear weights of a model that is one file, by whole singular value decompositions; its sketches
    are those of random inputs."""
    state = load_file(base / "model.safetensors")
    layers = len({name for name in state if name.endswith("q_proj.weight")})
    tensors, weights = {}, {}
    for layer in range(layers):
        for place, names in READS.items():
            group = f"model.layers.{layer}.{place}"
            home = f"model.layers.{layer}.{place.split('.')[0]}"
            own = {f"{home}.{name}.weight": state[f"{home}.{name}.weight"].double() for name in names}
            v = torch.linalg.svd(torch.cat([*own.values()]), full_matrices=False)[2][:rank].T
            tensors[group + V] = v
            if text:
                x = torch.randn(50, len(v), generator=torch.Generator().manual_seed(layer), dtype=v.dtype)
                tensors[group + K] = v.T @ (x.T @ x / 50) @ v
            for name, matrix in own.items():
                u = torch.linalg.svd(matrix @ v, full_matrices=False)[0]
                tensors[name + U], tensors[name + C0] = u, u.T @ matrix @ v
                energy = float(tensors[name + C0].square().sum() / matrix.square().sum())
                weights[name] = PanelWeight(input=group, rank=u.shape[1], energy=energy, text_energy=None, error=0.0)
    header = PanelHeader(
        base=base.name,
        files={"model.safetensors": file_hash(base / "model.safetensors")},
        rank=rank,
        basis=DATA if text else "svd",
        scale=scale,
        weights=weights,
        texts={"sha256": "0" * 64, "tokens": 50} if text else None,
    )

    def fill(put):
        for name, tensor in tensors.items():
            put(name, tensor)
        return header

    write_panel(out, [(name, tuple(tensor.shape)) for name, tensor in tensors.items()], fill)
    return header
