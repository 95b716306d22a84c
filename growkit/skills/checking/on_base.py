"""The model that skills are on, for what is measured on data: it is opened, run, and left as it was. Knows checkpoints
and live models; ignorant of what the numbers say.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, Checkpoint
from growkit.data.batches import Batch
from growkit.errors import RequestError
from growkit.families import Family, vocabulary_size
from growkit.growth.source_headers import Headers
from growkit.growth.sources import headers_of, open_source
from growkit.growth.width.sizes import read_sizes
from growkit.merging.mergeable import check_each
from growkit.models.devices import device_named
from growkit.models.running import check_complete, load_model, loadable, objective
from growkit.models.verify import room_for
from growkit.skills.checking.check_words import CheckRequest
from growkit.skills.checking.checked_skills import CheckedSkill
from growkit.skills.checking.from_data import energies_of_data, moments_of_data
from growkit.skills.checking.from_sketches import Measured
from growkit.skills.checking.lora_skill import LoraSkill, open_lora_skill
from growkit.skills.checking.repair import Repair, begin_repair
from growkit.skills.checking.rows_of_data import RowsOfData
from growkit.skills.checking.skill_table import GeneralLosses, OwnLosses
from growkit.skills.checking.switched import SwitchedSkills
from growkit.skills.checking.through_network import On, passes, through_network
from growkit.skills.controlled import ALL, InputGroup, input_groups
from growkit.skills.gates.named_skills import NamedSkill
from growkit.skills.panel_file import Panel

NOTHING: On = frozenset()


@dataclass(kw_only=True)
class FoundThrough:
    """What went through the network. kl: by (source, target); own_kl, losses: by target."""

    kl: dict[tuple[str, str], float] = field(default_factory=dict)
    own_kl: dict[str, float] = field(default_factory=dict)
    losses: dict[str, OwnLosses] = field(default_factory=dict)
    general: GeneralLosses | None = None


@dataclass(kw_only=True, eq=False)
class OnBase:
    """An opened model. groups: of all its linear weights. rows, texts: there once `read` has run, as is the live
    model."""

    source: Checkpoint
    headers: Headers
    family: Family
    groups: list[InputGroup]
    device: torch.device
    rows: dict[str, Batch] = field(default_factory=dict)
    texts: Batch | None = None
    model: Any = None

    def lora(self, named: NamedSkill) -> LoraSkill:
        """A LoRA on this model; raises as open_lora_skill does."""
        return open_lora_skill(named, self.source, self.headers, self.family, self.groups)

    def read(self, request: CheckRequest) -> None:
        """Make rows of the data, and load the model. Raises RequestError where there is no room for it or it does not
        predict the next token."""
        with loadable(self.source) as folder:
            config = read_model_config(folder / CONFIG)
            if not objective(config, self.source.label):
                raise RequestError(
                    f"{self.source.label!r} fills in masked tokens; --data and --text measure models that predict the next"
                    " one, and what skills do to each other is known without them"
                )
            rows = RowsOfData(folder, config, self.source.label, request.tokens)
            self.rows = {name: rows.of([data]) for name, data in request.data.items()}
            self.texts = rows.of(request.texts) if request.texts else None
            bytes_needed = sum(tensor.elements for tensor in self.source.tensors.values())
            lacking = room_for(bytes_needed, "running the model over data")
            if lacking and self.device.type == "cpu":
                raise RequestError(
                    f"{lacking}; without --base what skills do to each other is told from sketches alone"
                )
            stored = {tensor.dtype for tensor in self.source.tensors.values()}
            model, keys = load_model(config, folder, torch.float64 if torch.float64 in stored else torch.float32)
        check_complete(keys, self.source.label, "what it makes of data is drawn at random")
        self.model = model.to(self.device)
        self.model.config.use_cache = False

    def repair(self, request: CheckRequest, skills: Sequence[CheckedSkill], force: bool) -> Repair | None:
        """What mends a LoRA, where that is asked; raises as begin_repair does."""
        return None if request.repair is None else begin_repair(request, skills, force)

    def energies(self, skills: Sequence[CheckedSkill], names: Sequence[str], repair: Repair | None) -> Measured:
        """What every skill puts out on the data of these. repair: is shown each moment."""
        touched = {weight for skill in skills for weight in skill.weights}
        groups = [group for group in self.groups if any(weight.name in touched for weight in group.weights)]
        rows = {name: self.rows[name] for name in names}
        moments = moments_of_data(self.model, self.family, groups, rows)
        return energies_of_data(skills, moments if repair is None else repair.watching(moments))

    def through(self, skills: Sequence[CheckedSkill], begin: Callable[[int], Callable[[int], None]]) -> FoundThrough:
        """Losses and divergences on all data that there are."""
        names = [skill.name for skill in skills]
        every, vocabulary = frozenset(names), vocabulary_size(self.headers.config)
        alone = [frozenset([name]) for name in names]
        sets = {name: [NOTHING, every, *(frozenset([name, other]) for other in names)] for name in self.rows}
        general = [NOTHING, every, *alone]
        total = sum(passes(rows, sets[name], vocabulary) for name, rows in self.rows.items())
        total += 0 if self.texts is None else passes(self.texts, general, vocabulary)
        advance, found = begin(total), FoundThrough()
        switched = SwitchedSkills(self.model, skills)
        try:
            for name, rows in self.rows.items():
                own = frozenset([name])
                run = through_network(self.model, switched, rows, sets[name], own, advance)
                found.losses[name] = OwnLosses(base=run.loss[NOTHING], alone=run.loss[own], plugged=run.loss[every])
                found.own_kl[name] = run.kl[NOTHING]
                found.kl |= {(other, name): run.kl[own | {other}] for other in names if other != name}
            if self.texts is not None:
                run = through_network(self.model, switched, self.texts, general, NOTHING, advance)
                found.general = GeneralLosses(
                    base=run.loss[NOTHING],
                    plugged=run.loss[every],
                    kl=run.kl[every],
                    alone={name: run.loss[frozenset([name])] for name in names},
                )
        finally:
            switched.close()
        return found


@contextmanager
def opened_base(base: str | Path, panel: Panel, device: str) -> Iterator[OnBase]:
    """Open the model that a panel is of. Raises RequestError for another one, with both hashes."""
    where = device_named(device)
    source = open_source(base)
    try:
        panel.check_base(source)
        headers = headers_of(source)
        family = check_each([headers])
        layers = range(read_sizes(family, headers.config)["layer"])
        groups = input_groups(family, headers.config, headers.shapes, layers, ALL)
        yield OnBase(source=source, headers=headers, family=family, groups=groups, device=where)
    finally:
        source.close()
