"""The proof: two checkpoints, the same tokens, how far apart they come out. Knows transformers' models; ignorant of how a
checkpoint was made, except that growkit.json says what to expect and how a grown hidden axis is read.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.axes import READ
from growkit.checkpoint.source import CONFIG, PROVENANCE, Checkpoint, open_checkpoint, read_json
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.families.schema import has_language_head
from growkit.maps import GATHER, AxisMap
from growkit.operators.seeds import generator
from growkit.output import map_from_json
from growkit.plan import Plan

SEQUENCES, LENGTH = 8, 64
# largest difference over the largest value that rounding explains, by the dtype that is stored
EXACT_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
NEAR_TOLERANCE = 0.25
AXIS_OF = {"last_hidden_state": "hidden", "pooler_output": "pooled"}


@dataclass(frozen=True)
class Report:
    """What a comparison measured.

    compared: which output. max_difference, mean_difference: absolute, between that output of both. scale: its largest
    absolute value in the source. relative: max_difference / scale, judged against tolerance (None: measured, not
    judged). kl: mean Kullback-Leibler divergence from the source's distribution, nats; top1: share of positions where
    both choose alike; loss_source, loss_target: mean nats per token; cosine: of mean-pooled hidden states; each None
    where it has no meaning for the model. keys: names transformers missed or did not expect in the result.
    """

    source: str
    target: str
    compared: str
    text: str
    tokens: int
    exactness: str
    max_difference: float
    mean_difference: float
    scale: float
    relative: float
    tolerance: float | None
    kl: float | None
    top1: float | None
    loss_source: float | None
    loss_target: float | None
    cosine: float | None
    keys: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Within tolerance, and loaded with no missing and no unexpected keys."""
        return not self.keys and (self.tolerance is None or self.relative <= self.tolerance)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    source: str | Path | Checkpoint,
    target: str | Path,
    text: str | Path | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> Report:
    """Load both in stock transformers, run the same tokens, compare logits (hidden states where there is no head).

    text: a file of real text, tokenised by the source's tokenizer; without it, random tokens. tolerance: largest
    relative difference allowed; by default what the result's exactness and dtype promise. Raises CheckpointError or
    RequestError for what cannot be loaded or compared.
    """
    before = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    after = open_checkpoint(target)
    dtypes = {tensor.dtype for tensor in after.tensors.values() if tensor.dtype.is_floating_point}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    provenance = _provenance(after)
    exactness = provenance.get("exactness", "exact")
    with _loadable(before) as folder:
        tokenizer = _tokenizer(folder) if text is not None else None
        config = read_json(folder / CONFIG)
        sequences = _sequences(config, tokenizer, text, seed)
        reference = _Results(config, folder, dtype, sequences, tokenizer, seed)
    with _loadable(after) as folder:
        result = _Results(read_json(folder / CONFIG), folder, dtype, sequences, tokenizer, seed)
    maps = {axis: map_from_json(entry) for axis, entry in provenance.get("maps", {}).items()}
    compared, ours, theirs = _comparable(reference.outputs, result.outputs, maps, str(target))
    difference = (ours - theirs).abs()
    scale = ours.abs().max().item()
    relative = difference.max().item() / scale if scale else difference.max().item()
    if tolerance is None:
        coarsest = max((EXACT_TOLERANCE.get(d, 0.1) for d in dtypes), default=1e-4)
        tolerance = {"exact": coarsest, "near": NEAR_TOLERANCE}.get(exactness)
    distributions = reference.vocabulary_output == compared or compared.endswith("logits")
    return Report(
        before.label,
        str(target),
        compared,
        "random tokens" if text is None else Path(text).name,
        sum(sequence.numel() for sequence in sequences),
        exactness,
        difference.max().item(),
        difference.mean().item(),
        scale,
        relative if relative == relative else float("inf"),
        tolerance,
        _kl(ours, theirs) if distributions else None,
        (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item() if distributions else None,
        reference.loss,
        result.loss,
        None if distributions else _cosine(ours, theirs, sequences),
        tuple(result.keys),
    )


def fits_in_memory(plan: Plan) -> str:
    """Why a result is too large to verify here, or '' where it fits: the larger model in float32 and some room."""
    needed = 1.3 * 4 * max(plan.parameters()) + 1e9
    available = _available_bytes()
    if needed <= available:
        return ""
    return f"verifying needs about {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free"


class _Results:
    """What one checkpoint makes of the sequences."""

    def __init__(
        self, config: dict[str, Any], folder: Path, dtype: torch.dtype, sequences: list, tokenizer: Any, seed: int
    ):
        model, self.keys = _load(config, folder, dtype)
        family = family_named(config.get("model_type"))
        self.loss: float | None = None
        self.vocabulary_output = ""
        collected: dict[str, list[torch.Tensor]] = {}
        losses: list[torch.Tensor] = []
        masked = not _is_causal(config)
        for number, ids in enumerate(sequences):
            inputs, labels = _masked(ids, config, tokenizer, seed, number) if masked else (ids, ids)
            with torch.no_grad():
                output = model(input_ids=inputs[None], attention_mask=torch.ones_like(inputs[None]))
            for name, value in output.items():
                if isinstance(value, torch.Tensor) and value.is_floating_point() and name != "loss":
                    collected.setdefault(name, []).append(value[0].double())
                    if value.shape[-1] == config.get("vocab_size") and value.dim() == 3:
                        self.vocabulary_output = name
                        losses.append(_loss(value[0], labels, shift=not masked))
        if not collected:
            raise CheckpointError(f"a {type(model).__name__} of family {family.model_type} put out nothing to compare")
        self.outputs = {name: torch.stack(values) for name, values in collected.items()}
        if losses and has_language_head(type(model).__name__):
            self.loss = torch.cat(losses).mean().item()


def _comparable(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], maps: dict[str, AxisMap], target: str
) -> tuple[str, torch.Tensor, torch.Tensor]:
    """The outputs of both on one footing: logits as they are, hidden states collapsed to the source's width."""
    heads = [name for name in ours if name.endswith("logits")]
    names = heads or [name for name in ours if name in AXIS_OF]
    a, b = [], []
    for name in names:
        mine, grown = ours[name], theirs[name]
        if mine.shape != grown.shape and name in AXIS_OF:
            axis = maps.get(AXIS_OF[name])
            if axis is None or axis.old != mine.shape[-1] or axis.new != grown.shape[-1]:
                raise CheckpointError(
                    f"{target!r} has hidden states of {grown.shape[-1]} where the source has {mine.shape[-1]}, and no"
                    f" {PROVENANCE} that says how they correspond; verify against the checkpoint it was grown from"
                )
            grown = collapse(grown, axis)
        if mine.shape != grown.shape:
            raise CheckpointError(
                f"{name} has shape {list(grown.shape)} in {target!r} and {list(mine.shape)} in the source"
            )
        a.append(mine.flatten(0, -2))
        b.append(grown.flatten(0, -2))
    if len({part.shape[-1] for part in a}) > 1:  # such as masked-LM and next-sentence logits
        a, b = [part.flatten()[:, None] for part in a], [part.flatten()[:, None] for part in b]
    return " + ".join(names), torch.cat(a), torch.cat(b)


def collapse(values: torch.Tensor, axis: AxisMap) -> torch.Tensor:
    """Values over a grown axis (..., new) read back to (..., old): the sum over copies of read * value."""
    read = axis.sides[READ]
    weight = torch.from_numpy(read.amplitude * (read.mode == GATHER)).to(values.dtype)
    result = torch.zeros(*values.shape[:-1], axis.old, dtype=values.dtype)
    return result.index_add(-1, torch.from_numpy(axis.index), values * weight)


def _load(config: dict[str, Any], folder: Path, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """A stock model in eval mode, and the keys that transformers missed or did not expect."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    names = config.get("architectures") or ["AutoModel"]
    model_class = getattr(transformers, names[0], transformers.AutoModel)
    try:
        model, info = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True, local_files_only=True)
    except Exception as error:  # transformers raises many kinds; each means that this folder does not load
        raise CheckpointError(
            f"transformers cannot load {str(folder)!r}: {str(error).strip().splitlines()[0]}"
        ) from None
    wrong = [f"{kind[:-5]}: {key}" for kind in ("missing_keys", "unexpected_keys") for key in sorted(info[kind])]
    family = family_named(config.get("model_type"))
    # what transformers recomputes is no parameter; a pooler that was never stored is transformers' own addition
    return model.eval(), [key for key in wrong if not family.is_buffer(key.split(": ")[1]) and "pooler." not in key]


def _is_causal(config: dict[str, Any]) -> bool:
    return not family_named(config.get("model_type")).post_norm


def _sequences(config: dict[str, Any], tokenizer: Any, text: str | Path | None, seed: int) -> list[torch.Tensor]:
    """Token sequences (length,): pieces of the text spread over its length, or random ids away from special ones."""
    family = family_named(config.get("model_type"))
    positions = config.get(family.sizes["position"]) or LENGTH
    length = min(LENGTH, positions - 2)
    vocabulary = config[family.sizes["vocab"]]
    if text is None:
        special = {config.get(f"{kind}_token_id") for kind in ("pad", "bos", "eos", "mask", "cls", "sep")}
        allowed = torch.tensor([i for i in range(vocabulary) if i not in special])
        draws = torch.randint(len(allowed), (SEQUENCES, length), generator=generator(seed, "verify"))
        return list(allowed[draws])
    try:
        content = Path(text).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read text from {str(text)!r}: {error}") from None
    ids = tokenizer(content[:2_000_000], add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < 2:
        raise RequestError(f"{str(text)!r} is too short: it makes {len(ids)} tokens")
    if max(ids) >= vocabulary:
        raise CheckpointError(f"the tokenizer makes token {max(ids)}, but the model has a vocabulary of {vocabulary}")
    length = min(length, len(ids))
    starts = torch.linspace(0, len(ids) - length, SEQUENCES).long().unique()
    return [torch.tensor(ids[s : s + length]) for s in starts.tolist()]


def _masked(
    ids: torch.Tensor, config: dict[str, Any], tokenizer: Any, seed: int, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """15 % of a sequence hidden behind the mask token where there is one, and the ids with -100 elsewhere as labels."""
    mask = getattr(tokenizer, "mask_token_id", None)
    if mask is None:
        return ids, ids
    chosen = torch.rand(ids.shape, generator=generator(seed, f"mask {number}")) < 0.15
    return torch.where(chosen, mask, ids), torch.where(chosen, ids, -100)


def _loss(logits: torch.Tensor, labels: torch.Tensor, shift: bool) -> torch.Tensor:
    """(positions,) nats per predicted token."""
    logits, labels = (logits[:-1], labels[1:]) if shift else (logits, labels)
    losses = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none", ignore_index=-100)
    return losses[labels != -100]


def _kl(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def _cosine(ours: torch.Tensor, theirs: torch.Tensor, sequences: list[torch.Tensor]) -> float:
    """Mean cosine of mean-pooled hidden states, over sequences of equal length."""
    count = len(sequences)
    a, b = (values[: len(values) // count * count].unflatten(0, (count, -1)).mean(1) for values in (ours, theirs))
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().item()


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.folder / PROVENANCE if checkpoint.folder else None
    return read_json(path) if path is not None and path.exists() else {}


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as for models
        raise RequestError(
            f"--text needs the source's tokenizer, which does not load: {str(error).splitlines()[0]}"
        ) from None


@contextmanager
def _loadable(checkpoint: Checkpoint) -> Iterator[Path]:
    """A folder transformers can load: the checkpoint's own, or links to its one file beside the config it lacked."""
    folder = checkpoint.folder
    files = checkpoint.files()
    whole = (
        folder is not None and (folder / CONFIG).exists() and (len(files) > 1 or files[0].name == "model.safetensors")
    )
    if whole and folder is not None:
        yield folder
        return
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.label!r} has no config.json, so transformers cannot load it; put one beside it"
        )
    with tempfile.TemporaryDirectory(prefix="growkit-") as name:
        temporary = Path(name)
        (temporary / CONFIG).write_text(json.dumps(checkpoint.config))
        for path in folder.iterdir() if folder else ():
            if path.is_file() and path.suffix in (".json", ".txt", ".model") and not (temporary / path.name).exists():
                os.symlink(path.resolve(), temporary / path.name)
        os.symlink(files[0].resolve(), temporary / "model.safetensors")
        yield temporary


def _available_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2
