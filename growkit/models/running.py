"""Running a checkpoint in stock transformers: loading it, choosing tokens, collecting what comes out. Knows live
models; ignorant of growth and of what is compared with what.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.small_files import read_bytes
from growkit.checkpoint.source import CONFIG, Checkpoint
from growkit.checkpoint.token_ids import beyond_rows
from growkit.data.encode import unencodable
from growkit.data.tokenizer import stock_tokenizer
from growkit.errors import CheckpointError, RequestError, reason_of
from growkit.families import family_named, vocabulary_size
from growkit.families.text_part import nested, special_tokens
from growkit.models.images import inputs_of, random_images
from growkit.models.stock import computing, experts_that_compute, stock_class, stock_model
from growkit.operators.seeds import generator

SEQUENCES, LENGTH = 8, 64
MISSING = "missing: "  # before the names of weights that transformers did not find
SEES_ALL = "use_bidirectional_attention"  # config key of decoders that were made encoders (Gemma)
SPARE = (
    2  # positions left over in every family, so that models of one size get the same tokens wherever they count from
)


class Results:
    """What one checkpoint makes of the sequences: outputs by name (sequences, ...), the mean loss, and stray keys.

    axes: of outputs, by name. vocabulary_output: which of the outputs is a language model's logits, or "". settled:
    whether outputs are left out that depend on weights that the file lacks, which transformers draws at random; note:
    which were, "" for none. put: what puts something on the model.
    """

    def __init__(
        self,
        config: dict[str, Any],
        folder: Path,
        dtype: torch.dtype,
        sequences: list,
        tokenizer: Any,
        seed: int,
        settled: bool,
        put: Callable[[Any], Any] = lambda model: model,
    ):
        bare, self.keys = load_model(config, folder, dtype)
        model, named = put(bare), type(bare).__name__
        family = family_named(config.get("model_type"))
        self.axes = family.output_axes
        self.vocabulary_output = ""
        self.labels: list[torch.Tensor] = []
        collected: dict[str, list[torch.Tensor]] = {}
        self.masked = masked = not is_causal(config)
        missing = [key.removeprefix(MISSING) for key in self.keys if key.startswith(MISSING)]
        unsettled = _unsettled(model, missing, sequences[0]) if missing and settled else set()
        for number, ids in enumerate(sequences):
            inputs, labels = _masked(ids, tokenizer, seed, number) if masked else (ids, ids)
            for name, value in _outputs(model, inputs).items():
                if name not in unsettled:
                    collected.setdefault(name, []).append(value[0].double())
                    if not family.reads_pixels and value.shape[-1] == vocabulary_size(config) and value.dim() == 3:
                        self.vocabulary_output = name
            self.labels.append(labels)
        lacked = f"weights that the file lacks and transformers draws at random ({', '.join(missing[:3])})"
        if not collected and unsettled:
            raise CheckpointError(f"all that a {named} puts out depends on {lacked}; nothing to compare")
        if not collected:
            raise CheckpointError(f"a {named} of family {family.model_type} put out nothing to compare")
        self.note = f"{', '.join(sorted(unsettled))} left out: depends on {lacked}" if unsettled else ""
        self.outputs = {name: torch.stack(values) for name, values in collected.items()}
        predicts = family.has_language_head(named) and not family.stacks and (masked or not config.get(SEES_ALL))
        self.has_loss = bool(self.vocabulary_output) and predicts

    @property
    def loss(self) -> float | None:
        """Mean nats per predicted token; None for what is no language model."""
        return self.loss_of(self.outputs[self.vocabulary_output]) if self.has_loss else None

    def loss_of(self, logits: torch.Tensor) -> float:
        """Mean nats per predicted token of any logits (sequences, positions, vocabulary) for the same tokens."""
        shift = not self.masked
        return torch.cat([_loss(values, labels, shift) for values, labels in zip(logits, self.labels)]).mean().item()


@contextmanager
def loadable(checkpoint: Checkpoint) -> Iterator[Path]:
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
        (temporary / CONFIG).write_text(json.dumps(nested(checkpoint.config)))
        for path in folder.iterdir() if folder else ():
            if path.is_file() and path.suffix in (".json", ".txt", ".model") and not (temporary / path.name).exists():
                os.symlink(path.resolve(), temporary / path.name)
        os.symlink(files[0].resolve(), temporary / "model.safetensors")
        yield temporary


def sequences_for(
    config: dict[str, Any],
    tokenizer: Any,
    text: str | Path | None,
    seed: int,
    label: str,
    sequences: int = SEQUENCES,
    longest: int = LENGTH,
) -> list[torch.Tensor]:
    """Token sequences (length,): pieces of the text spread over its length, or random ids away from special ones; for a
    model that reads images, random ones (channels, height, width).

    Raises RequestError for a text that cannot be read or is too short, CheckpointError for a tokenizer of another
    model.
    """
    family = family_named(config.get("model_type"))
    if family.reads_pixels:
        return list(random_images(config, sequences, generator(seed, "verify")))
    positions = family.positions_stated(config) or longest
    length = max(1, min(longest, positions - SPARE, family.longest(config) or longest))
    vocabulary = vocabulary_size(config)
    if text is None:
        stated = [config.get(f"{kind}_token_id") for kind in ("pad", "bos", "eos", "mask", "cls", "sep")]
        stated += special_tokens(config)
        special = {i for value in stated for i in (value if isinstance(value, list) else [value])}
        allowed = torch.tensor([i for i in range(vocabulary) if i not in special] or [0])
        draws = torch.randint(len(allowed), (sequences, length), generator=generator(seed, "verify"))
        return list(allowed[draws])
    try:
        content = read_bytes(Path(text)).decode("utf-8")
    except ValueError as error:
        raise RequestError(f"cannot read text from {str(text)!r}: {error}") from None
    try:
        ids = tokenizer(content[:2_000_000], add_special_tokens=False, verbose=False)["input_ids"]
    except Exception as error:  # the tokenizers library raises many kinds
        raise unencodable(error) from None
    if len(ids) < 2:
        raise RequestError(f"{str(text)!r} is too short: it makes {len(ids)} tokens")
    largest = max(ids)
    if largest >= vocabulary:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise CheckpointError(beyond_rows(f"{str(text)!r} holds", largest, token, label, vocabulary))
    length = min(length, len(ids))
    starts = torch.linspace(0, len(ids) - length, sequences).long().unique()
    return [torch.tensor(ids[s : s + length]) for s in starts.tolist()]


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer in a folder. Raises RequestError where there is none that loads."""
    try:
        return stock_tokenizer(folder)
    except Exception as error:  # transformers raises many kinds; each means that there is none
        raise RequestError(f"--text needs the source's tokenizer, which does not load: {reason_of(error)}") from None


def load_model(config: dict[str, Any], folder: Path, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """A stock model in eval mode, and the keys that transformers missed or did not expect."""
    model, info = stock_model(stock_class(config, str(folder)), folder, str(folder), dtype)
    wrong = [f"{kind[:-5]}: {key}" for kind in ("missing_keys", "unexpected_keys") for key in sorted(info[kind])]
    family = family_named(config.get("model_type"))
    # what transformers recomputes is no parameter
    return experts_that_compute(model, config, dtype).eval(), [
        key for key in wrong if not family.is_buffer(key.split(": ")[1])
    ]


def check_complete(keys: list[str], label: str, so: str) -> None:
    """Refuse a model of whose weights some are missing. keys: as load_model returns them; so: what follows from that.
    Raises CheckpointError."""
    missing = [key for key in keys if key.startswith(MISSING)]
    if missing:
        raise CheckpointError(f"{label!r} lacks weights that its class needs ({missing[0]}); {so}")


def is_causal(config: dict[str, Any]) -> bool:
    """Whether a model of this config predicts the next token, rather than fills in masked ones."""
    name = (config.get("architectures") or [""])[0]
    return family_named(config.get("model_type")).causal or name.endswith(("LMHeadModel", "ForCausalLM"))


def objective(config: dict[str, Any], label: str) -> bool:
    """Whether a language model is causal. Raises CheckpointError for what is none, or sees what it should predict."""
    name = (config.get("architectures") or ["no class"])[0]
    family = family_named(config.get("model_type"))
    if not family.has_language_head(str(name)):
        raise CheckpointError(f"{label!r} is a {name}, which has no language-model head; there is no loss to measure")
    if family.stacks:
        raise CheckpointError(
            f"{label!r} is a {name}, whose decoder reads what an encoder made of {'a sound' if family.frames else 'another text'};"
            " pretrain, tune, teach and eval are for models of one stack: growkit grows, merges and verifies this one"
        )
    causal = is_causal(config)
    if causal and not family.causal and not config.get("is_decoder"):
        raise CheckpointError(f"{label!r} is a {name} without is_decoder: it sees the tokens that it should predict")
    if causal and config.get(SEES_ALL):
        raise CheckpointError(f"{label!r} is a {name} with {SEES_ALL}: it sees the tokens that it should predict")
    return causal


def _outputs(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a model puts out for one sequence (length,), or one image, by name: numbers alone, (1, ...) each."""
    if ids.is_floating_point():
        inputs = {"pixel_values": ids[None].to(model.dtype)}
    else:
        inputs = inputs_of(model, ids[None], torch.ones_like(ids[None]))
    with torch.no_grad(), computing(type(model).__name__):
        output = model(**inputs)
    return {
        name: value
        for name, value in output.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name != "loss"
    }


def _unsettled(model: Any, missing: list[str], ids: torch.Tensor) -> set[str]:
    """Names of the outputs that change when the weights that a file lacks are drawn anew."""
    state, draws = model.state_dict(), generator(0, "missing")
    one = _outputs(model, ids)
    for name in missing:
        state[name].normal_(generator=draws)
    other = _outputs(model, ids)
    return {name for name in one if not torch.equal(one[name], other[name])}


def _masked(ids: torch.Tensor, tokenizer: Any, seed: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
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
