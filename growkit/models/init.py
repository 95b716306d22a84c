"""A checkpoint from nothing but a config: random weights, the baseline that growing is compared with. Knows
transformers' classes; ignorant of families and of text.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.card import model_card
from growkit.checkpoint.companions import copy_templates
from growkit.checkpoint.folder import write_folder
from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.record import record
from growkit.checkpoint.small_files import check_inside
from growkit.checkpoint.source import CONFIG, HUB_ID, from_hub
from growkit.checkpoint.writer import check_target
from growkit.data.tokenizer import tokenizer_folder
from growkit.errors import CheckpointError, RequestError, reason_of
from growkit.families.text_part import nested
from growkit.models.stock import hushed, with_own_kernels
from growkit.version import __version__

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}
SHARD_SIZE = "5GB"
# what begins or ends so belongs to a tokenizer, or says how to generate
TOKENIZER_STEMS = (
    "tokenizer",
    "special_tokens",
    "added_tokens",
    "chat_template",
    "vocab",
    "merges",
    "generation_config",
)
TOKENIZER_ENDS = (".model", ".tiktoken", ".spm", ".bpe", ".vocab")


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """What was made: the folder, the class and number of its parameters, how they are stored, and whether with a
    tokenizer.
    """

    folder: Path
    architecture: str
    parameters: int
    dtype: str
    seed: int
    tokenizer: bool
    notes: tuple[str, ...] = ()  # what was taken for granted

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {**asdict(self), "folder": str(self.folder)}


def init(
    config: str | Path, out: str | Path, *, seed: int = 0, dtype: str | None = None, force: bool = False
) -> Initialised:
    """Make a stock checkpoint with random weights, as transformers initialises them; the same seed gives the same
    bytes.

    config: a config.json, a checkpoint (its config; tokenizer files are copied along) or a hub id; the class is the
    first of its `architectures`, or its family's language model where it names none. dtype: what to store, float32
    where neither it nor the config says. Needs memory for the whole model in float32. Raises RequestError or
    CheckpointError, having written nothing.
    """
    folder = Path(out)
    content, beside = _config_and_folder(config)
    replaces = check_target(folder, [Path(config)] if Path(config).exists() else [], force)
    name = dtype or str(content.get("dtype") or content.get("torch_dtype") or "float32").removeprefix("torch.")
    if name not in DTYPES:
        named = f"--dtype {dtype!r}" if dtype else f"dtype {name!r} in the config"
        raise RequestError(f"{named} is not one of {', '.join(DTYPES)}; give one with --dtype")
    named = _named_class(content, str(config))
    model_class, settings = _class_of({**content, "architectures": [named]}, str(config))
    notes = () if content.get("architectures") else (f"its config names no class: it is a {named}, a language model",)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in _built(model_class, settings, str(config)).parameters())
    companions = [path for path in sorted(beside.iterdir()) if _is_of_tokenizer(path)] if beside is not None else []
    for path in companions:
        check_inside(path)

    def fill(partial: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _built(model_class, settings, str(config)).to(DTYPES[name])
        model.save_pretrained(partial, max_shard_size=SHARD_SIZE)
        for path in companions:
            shutil.copyfile(path, partial / path.name)
        if beside is not None:
            copy_templates(beside, partial)

    architecture, request = model_class.__name__, {"config": Path(str(config)).name, "seed": seed, "dtype": name}
    write_folder(
        folder,
        fill=fill,
        room=parameters * DTYPES[name].itemsize,
        record=lambda _: record("init", architecture=architecture, request=request, sources=[]),
        card=_card(architecture, parameters, request),
        replaces=replaces,
    )
    tokenizer = tokenizer_folder(folder) is not None
    return Initialised(
        folder=folder, architecture=architecture, parameters=parameters, dtype=name, seed=seed, tokenizer=tokenizer,
        notes=notes,
    )  # fmt: skip


def _named_class(content: dict[str, Any], label: str) -> str:
    """The class a config names; for one that names none its family's language model, which fills in masked tokens
    where it is an encoder's. Raises CheckpointError where there is no such.
    """
    from transformers.models.auto import modeling_auto as auto

    stated, kind = content.get("architectures"), content.get("model_type")
    if stated:
        return str(stated[0])
    kinds = [auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    if content.get("is_decoder"):
        kinds.reverse()
    found = [table[kind] for table in kinds if isinstance(kind, str) and kind in table]
    if not found:
        raise CheckpointError(
            f"the config of {label!r} names no class, and transformers has no language model of model_type {kind!r};"
            " give it 'architectures', such as LlamaForCausalLM"
        )
    return str(found[0])


def _class_of(content: dict[str, Any], label: str) -> tuple[Any, Any]:
    """(model class, its config) for what a config.json says. Raises CheckpointError where transformers has no such."""
    import transformers

    transformers.logging.disable_progress_bar()

    name = content["architectures"][0]
    if content.get("quantization_config"):
        raise CheckpointError(f"the config of {label!r} is of a quantised model; remove its quantization_config")
    model_class = getattr(transformers, name, None)
    if not isinstance(model_class, type) or not issubclass(model_class, transformers.PreTrainedModel):
        raise CheckpointError(f"the config of {label!r} names class {name!r}, which transformers does not have")
    config_class: Any = model_class.config_class
    if config_class is None or content.get("model_type") != config_class.model_type:
        raise CheckpointError(
            f"the config of {label!r} has model_type {content.get('model_type')!r}, but its class {name} is of"
            f" {getattr(config_class, 'model_type', None)!r}"
        )
    try:
        return model_class, with_own_kernels(config_class.from_dict(nested(content)))
    except Exception as error:  # whatever transformers finds wrong
        raise _refused(label, error) from None


def _built(model_class: Any, settings: Any, label: str) -> Any:
    try:
        with hushed():  # such as of token ids that a small vocabulary does not have
            return model_class(settings)
    except Exception as error:
        raise _refused(label, error) from None


def _refused(label: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"transformers cannot build a model from the config of {label!r}: {reason_of(error)}")


def _config_and_folder(source: str | Path) -> tuple[dict[str, Any], Path | None]:
    """The config of a checkpoint or by itself, and the checkpoint's folder; None for a config.json by itself."""
    path = Path(source)
    if path.suffix == ".json" and not path.is_dir():
        return read_model_config(path), None
    if not path.exists():
        if not HUB_ID.fullmatch(str(source)):
            raise CheckpointError(f"{str(source)!r} does not exist; give a config.json, a checkpoint or a hub id")
        path = Path(from_hub(str(source), ("*.json", "*.txt", "*.model", "*.jinja")))
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{str(source)!r} has no {CONFIG}; give one, a checkpoint or a hub id")
    return read_model_config(folder / CONFIG), folder


def _is_of_tokenizer(path: Path) -> bool:
    return path.is_file() and (path.name.startswith(TOKENIZER_STEMS) or path.name.endswith(TOKENIZER_ENDS))


def _card(architecture: str, parameters: int, request: dict[str, Any]) -> str:
    return model_card(
        f"{architecture}, untrained",
        f"Random weights made by growkit {__version__}: {parameters:,} parameters, seed {request['seed']},"
        f" {request['dtype']}. It has learned nothing yet.",
    )
