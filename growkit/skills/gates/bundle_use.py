"""A bundle at work: loaded as a stock model, or put on its base for one use of it. Knows bundles and live models;
ignorant of what is asked of them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, Checkpoint, open_checkpoint
from growkit.errors import CheckpointError
from growkit.models.adapters import Adapter, FolderAdapter, check_adapter
from growkit.models.live_layers import layers_of
from growkit.models.running import check_complete, load_model, loadable
from growkit.skills.gates.bundle_file import Bundle, is_bundle, read_bundle
from growkit.skills.gates.gated_model import gated
from growkit.skills.gates.skill_parts import parts_of

Path_ = str | Path


class BundleAdapter(Adapter):
    """A bundle on its base: each sequence opens its own skills or none. Conversations get rows of their own, so that
    each is decided by its own prompt."""

    packs = False

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self._opened: Counter[tuple[str, ...]] = Counter()

    def check(self, source: Checkpoint) -> None:
        """Refuse another base. Raises RequestError with both hashes, CheckpointError for a skill that is none."""
        self.bundle.check_base(source)
        for folder in self.bundle.folders:
            check_adapter(folder, source, "")

    def put_on(self, model: Any) -> Any:
        """The model, gated. Raises CheckpointError where the gate or a skill does not fit it."""
        gate, layers = self.bundle.gate, len(layers_of(model))
        hidden = gate.directions.shape[1]
        if gate.layer > layers or hidden != model.config.hidden_size:
            raise CheckpointError(
                f"{str(self.bundle.folder)!r} has a gate for layer {gate.layer} of {hidden} entries, and the base has"
                f" {layers} layers of {model.config.hidden_size}; make the bundle again"
            )
        parts = [parts_of(model, folder) for folder in self.bundle.folders]
        return gated(model, gate, parts, self.bundle.strengths)

    @contextmanager
    def reading(self, model: Any, ids: torch.Tensor, asked: torch.Tensor | None) -> Iterator[None]:
        """Within the block the rows of a batch (rows, length) open what their prompts say, asked (rows,) tokens of
        each; None: what their tokens say, all of them."""
        if asked is None:
            yield
        else:
            rows = model.skills.decide(ids, torch.arange(ids.shape[1]) < asked[:, None])
            with model.skills.decided(rows):
                yield
        self._opened.update(model.skills.last)

    def opened(self, model: Any) -> list[tuple[str, ...]] | None:
        """Which skills the rows of the newest batch opened."""
        return list(model.skills.last)

    def notes(self) -> Iterator[str]:
        """How often each skill opened in what was measured."""
        total = sum(self._opened.values())
        for names, count in sorted(self._opened.items()):
            yield f"{' and '.join(names) or 'no skill'} opened in {count:,} of {total:,} windows"


def base_and_adapter(checkpoint: Path_, adapter: Path_ | None) -> tuple[Path_, Adapter | None]:
    """(the model, what goes on it) of what a person names: a bundle stands for its base with it on.

    Raises CheckpointError for a bundle that is not sound, and where there is an adapter beside one.
    """
    if adapter is not None and is_bundle(adapter):
        return checkpoint, BundleAdapter(read_bundle(adapter))
    if not is_bundle(checkpoint):
        return checkpoint, None if adapter is None else FolderAdapter(adapter)
    if adapter is not None:
        raise CheckpointError(
            f"{str(checkpoint)!r} is a bundle of skills, which no adapter goes on; plug the adapter into the bundle, or name"
            " a model"
        )
    bundle = read_bundle(checkpoint)
    return bundle.base, BundleAdapter(bundle)


def load_bundle(folder: Path_, base: Path_ | None, dtype: torch.dtype) -> Any:
    """The stock model of a bundle's base with its skills behind the gate, as `growkit.load_skills` says."""
    adapter = BundleAdapter(read_bundle(folder))
    source = open_checkpoint(adapter.bundle.base if base is None else base)
    source.close()
    adapter.check(source)
    with loadable(source) as place:
        model, keys = load_model(read_model_config(place / CONFIG), place, dtype)
    check_complete(keys, source.label, "no gate can read it")
    return adapter.put_on(model)
