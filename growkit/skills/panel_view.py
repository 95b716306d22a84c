"""What there is to see of a panel: the energy kept, layer by layer, and the spectrum of every kind of weight. Knows
what panel.json and C0 say; ignorant of terminals and of what a control does to a model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.skills.panel_file import Panel
from growkit.skills.panel_header import PanelHeader
from growkit.skills.picture_file import figure_for, save_picture

_LAYER = re.compile(r"(?:^|\.)(\d{1,9})\.(.*)\.weight$")


@dataclass(frozen=True, kw_only=True)
class PanelView:
    """energy, text_energy: by layer, from 1, and kind of weight ("mlp.up_proj") the share kept; the second is empty
    without text. spectra: by kind the norms of C0's rows over the largest, largest first, their means over layers."""

    header: PanelHeader
    energy: Mapping[int, Mapping[str, float]]
    text_energy: Mapping[int, Mapping[str, float]]
    spectra: Mapping[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "panel": self.header.to_json(),
            "energy": {str(layer): dict(row) for layer, row in self.energy.items()},
            "text_energy": {str(layer): dict(row) for layer, row in self.text_energy.items()},
            "spectra": dict(self.spectra),
        }


def place_of(name: str) -> tuple[int, str]:
    """(layer from 1, kind) of a weight's name: (1, "mlp.up_proj") of "model.layers.0.mlp.up_proj.weight"."""
    match = _LAYER.search(name)
    return (int(match[1]) + 1, match[2]) if match else (0, name)


def view_of(panel: Panel) -> PanelView:
    """Look at a panel. Raises CheckpointError for a damaged one."""
    energy: dict[int, dict[str, float]] = {}
    text_energy: dict[int, dict[str, float]] = {}
    values: dict[str, list[torch.Tensor]] = {}
    for name, weight in panel.header.weights.items():
        layer, kind = place_of(name)
        energy.setdefault(layer, {})[kind] = weight.energy
        if weight.text_energy is not None:
            text_energy.setdefault(layer, {})[kind] = weight.text_energy
        norms = panel.control(name).norm(dim=1).sort(descending=True).values
        values.setdefault(kind, []).append(norms / norms[0].clamp(min=1e-30))
    spectra = {}
    for kind, each in values.items():
        shortest = min(map(len, each))
        spectra[kind] = torch.stack([one[:shortest] for one in each]).mean(0).tolist()
    return PanelView(header=panel.header, energy=energy, text_energy=text_energy, spectra=spectra)


def draw_spectra(view: PanelView, path: Path) -> None:
    """Draw the energy kept, by layer, and the spectra; write a picture of the kind that the name ends in.

    Raises RequestError for a name that is taken or of another kind, where matplotlib is missing, and for the disk.
    """
    figure = figure_for(path, (12, 5))
    kept, spectra = figure.subplots(1, 2)
    shares = view.text_energy or view.energy
    for kind, values in view.spectra.items():
        layers = [layer for layer in shares if kind in shares[layer]]
        kept.plot(layers, [shares[layer][kind] for layer in layers], marker="o", markersize=3, label=kind)
        spectra.semilogy(range(1, len(values) + 1), values, linewidth=1.4)
    kept.set(xlabel="layer", ylabel="share of what comes out that is kept" if view.text_energy else "energy kept")
    spectra.set(xlabel="direction", ylabel="norm over the largest")
    for axes in (kept, spectra):
        axes.grid(alpha=0.25)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    save_picture(figure, path)
