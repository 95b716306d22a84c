"""A LoRA that is mended: it no longer reads the directions that the others' data are made of. Knows second moments and
PEFT's two files; ignorant of models.

With Q the leading eigenvectors of the sum of the others' C_t, each over its trace, that have a share of its trace,

    A_s <- A_s (I - Q Q^T)

so that on the others' data what is left to read is 1 - share of the energy. What goes with that on its own data is the
price: 1 - E_s|dW' x|^2 / E_s|dW x|^2. B and scale stay, and so does the rank.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from growkit.checkpoint.new_folder import Contents, new_folder
from growkit.checkpoint.small_files import check_inside
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG
from growkit.checkpoint.writer import check_target
from growkit.errors import RequestError
from growkit.skills.checking.check_words import CheckRequest
from growkit.skills.checking.checked_skills import CheckedSkill
from growkit.skills.checking.from_data import Moments
from growkit.skills.checking.from_sketches import Measured
from growkit.skills.checking.lora_skill import LoraSkill
from growkit.skills.checking.rho import Energies, interference_of, output_energy
from growkit.skills.checking.skill_table import RepairedLora
from growkit.skills.controlled import InputGroup
from growkit.skills.small_tensors import write_tensors_file


def used_directions(moments: Sequence[torch.Tensor], share: float) -> torch.Tensor:
    """Q (in, k), orthonormal: the fewest leading eigenvectors of the sum of C_t / tr(C_t) with this share of it."""
    total = sum((moment / moment.trace().clamp(min=1e-300) for moment in moments), torch.zeros_like(moments[0]))
    values, vectors = torch.linalg.eigh((total + total.T) / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    count = int((values.cumsum(0) < share * values.sum()).sum()) + 1
    return vectors[:, : min(count, len(values))]


@dataclass(kw_only=True, eq=False)
class Repair:
    """A LoRA in the middle of being mended: `watching` sees every moment, `write` makes the new folder."""

    lora: LoraSkill
    share: float
    out: Path
    replaces: Contents
    _factors: dict[str, torch.Tensor] = field(default_factory=dict)  # A' by its tensor's name
    _energies: dict[str, Energies] = field(default_factory=dict)  # of the mended one, by whose data
    _directions: list[int] = field(default_factory=list)

    def watching(self, moments: Iterator[tuple[InputGroup, Moments]]) -> Iterator[tuple[InputGroup, Moments]]:
        """Hand moments on, and mend the weights that read each input."""
        for group, seen in moments:
            own = [weight.name for weight in group.weights if weight.name in self.lora.weights]
            if own:
                used = used_directions([moment for name, moment in seen.items() if name != self.lora.name], self.share)
                self._directions += [used.shape[1]] * len(own)
                for weight in own:
                    output, reads = self.lora.factors(weight)
                    kept = reads - used.to(reads) @ (used.to(reads).T @ reads)
                    self._factors[self.lora.changes[weight].a] = kept.T
                    for name, moment in seen.items():
                        energy = output_energy(output, kept.T @ moment.to(kept) @ kept)
                        self._energies.setdefault(name, {})[weight] = energy
            yield group, seen

    def write(self, measured: Measured) -> RepairedLora:
        """Make the folder, and say what it cost. measured: of all skills as they are. Raises RequestError for the
        disk."""
        name, stored = self.lora.name, self.lora.stored
        with new_folder(self.out, self.replaces) as place:
            tensors = {key: self.lora.tensor(key) for key in stored.tensors}
            tensors |= {key: kept.to(tensors[key].dtype) for key, kept in self._factors.items()}
            write_tensors_file(place / ADAPTER, tensors)
            check_inside(self.lora.named.folder / ADAPTER_CONFIG)
            shutil.copyfile(self.lora.named.folder / ADAPTER_CONFIG, place / ADAPTER_CONFIG)
        before = sum(measured[name, name].values())
        rho = {}
        for other in (other for other in self._energies if other != name):
            own = measured[other, other]
            pairs = [
                interference_of(name, other, of, own).mean or 0.0
                for of in (measured[name, other], self._energies[other])
            ]
            rho[other] = (pairs[0], pairs[1])
        return RepairedLora(
            skill=name,
            folder=str(self.out),
            lost=1 - sum(self._energies[name].values()) / before if before > 0 else 0.0,
            directions=sum(self._directions) / len(self._directions),
            rho=rho,
        )


def _is_alone(folder: Path) -> bool:
    """Whether a folder holds a LoRA and nothing else."""
    return {path.name for path in folder.iterdir()} == {ADAPTER, ADAPTER_CONFIG}


def begin_repair(request: CheckRequest, skills: Sequence[CheckedSkill], force: bool) -> Repair:
    """What mends the LoRA that a request names. Raises RequestError for an output that is in the way, and for a share
    that is none."""
    lora = next(skill for skill in skills if skill.name == request.repair)
    assert isinstance(lora, LoraSkill) and request.out is not None, "as the request was checked"
    if not 0 < request.share < 1:
        raise RequestError(f"--share {request.share:g} should be above 0 and below 1")
    sources = [skill.named.folder for skill in skills]
    replaces = check_target(Path(request.out), sources, force, _is_alone, "LoRA")
    return Repair(lora=lora, share=request.share, out=Path(request.out), replaces=replaces)
