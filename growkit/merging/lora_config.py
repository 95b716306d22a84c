"""What an adapter_config.json of PEFT says of a LoRA: the rank and the scale of each module. Knows every field of
PEFT's LoraConfig; ignorant of tensors.

A field is read here, or says nothing of what is computed once training is over, or is refused by name when it is set.
tests/test_lora_config.py holds the three lists to the fields that the installed PEFT has.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import AnyOf, Called, Fields, Flag, ListOf, MapOf, Null, Number, Text, Whole, shown
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import ADAPTER_CONFIG
from growkit.errors import CheckpointError, RequestError

READ = (
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias",
    "modules_to_save", "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "ensure_weight_tying", "target_parameters",
    "trainable_token_indices",
)  # fmt: skip
# which model it was, how it was trained, how it is held in memory; whether a matrix is stored (in, out), and which
# biases were trained, is seen from the base and from the tensors. What configures an initialisation counts only with
# the init_lora_weights of its name
HARMLESS = (
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "fan_in_fan_out", "bias", "runtime_config", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "velora_config", "megatron_core", "qalora_group_size",
)  # fmt: skip
REFUSED = {
    "alora_invocation_tokens": "it works from a phrase in the text on, which no weights can do",
    "arrow_config": "it chooses between adapters token by token, which no weights can do",
    "kasa_config": "its initialisation cut singular values off the base",
    "layer_replication": "it repeats layers: grow the base first, and save the adapter without it",
    "megatron_config": "it is of Megatron's layers, divided among processes",
    "monteclora_config": "it draws at random in training and stores more than A and B",
    "use_bdlora": "its A or B are block-diagonal",
    "use_qalora": "it belongs to weights that are quantised in groups",
}
KEEPS_BASE = ("gaussian", "eva", "orthogonal", "mica", "true", "false", "none")  # initialisations of A and B alone
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
RANK, NUMBER, TEXTS = Whole(1, (1 << 31) - 1), Number(-1e30, 1e30), ListOf(Text())
IDS = ListOf(Whole())
SWITCH = Called(Null(Flag()), "true or false")
NAMES = Called(Null(AnyOf((Text(), TEXTS))), "text or a list of text")
TYPES = Fields(
    {
        "r": Called(RANK, "a whole number above 0"),
        "lora_alpha": Called(NUMBER, "a finite number"),
        "rank_pattern": Called(Null(MapOf(RANK)), "whole numbers above 0 by module name"),
        "alpha_pattern": Called(Null(MapOf(NUMBER)), "finite numbers by module name"),
        "modules_to_save": Called(Null(TEXTS), "a list of module names"),
        "target_parameters": Called(Null(TEXTS), "a list of text"),
        "trainable_token_indices": Called(Null(AnyOf((IDS, MapOf(IDS)))), "token ids, or lists of them by module name"),
        "layers_to_transform": Called(Null(AnyOf((Whole(), IDS))), "layer numbers"),
        **dict.fromkeys(("target_modules", "exclude_modules", "layers_pattern"), NAMES),
        **dict.fromkeys(("use_rslora", "use_dora", "lora_bias", "ensure_weight_tying"), SWITCH),
    }
)
KEYS = 4096  # characters of a pattern that may be matched
WILD = 4  # of these may stand in a pattern: each multiplies the time that a match may take


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What counts of an adapter_config.json."""

    label: str  # of its folder
    rank: int
    alpha: float
    ranks: Mapping[str, int]  # pattern of module names -> rank
    alphas: Mapping[str, float]
    rank_stabilised: bool
    dora: bool
    bias: bool  # B has a bias
    saved: tuple[str, ...]  # ends of names of modules that were trained whole
    content: Mapping[str, Any]

    def rank_of(self, module: str) -> int:
        """The rank of a module, by its name in the model."""
        return self.ranks.get(pattern_for(tuple(self.ranks), module), self.rank)

    def scale_of(self, module: str) -> float:
        """What B A is multiplied by: alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732)."""
        alpha, rank = self.alphas.get(pattern_for(tuple(self.alphas), module), self.alpha), self.rank_of(module)
        return alpha / rank**0.5 if self.rank_stabilised else alpha / rank

    def tokens_of(self, module: str) -> tuple[int, ...]:
        """The ids of the tokens whose rows of an embedding were trained (trainable_token_indices)."""
        stated = self.content.get("trainable_token_indices") or []
        if isinstance(stated, dict):
            stated = next((ids for name, ids in stated.items() if _ends(module, [name])), [])
        return tuple(stated)

    def adapts(self, module: str) -> bool:
        """Whether PEFT would put a LoRA on a module of this name. What a regular expression says is left to the file.

        As peft.tuners.tuners_utils.check_target_module_exists.
        """
        targets, excluded = self.content.get("target_modules"), self.content.get("exclude_modules")
        if isinstance(excluded, list) and _ends(module, excluded):
            return False
        if targets is None and self.content.get("target_parameters"):
            return False
        if not isinstance(targets, list) or module in targets or self.content.get("ensure_weight_tying"):
            return True  # what PEFT ties goes along with what it is tied to
        layers = self.content.get("layers_to_transform")
        if layers in (None, []) or not _ends(module, targets):
            return _ends(module, targets)
        stated = self.content.get("layers_pattern") or [r"[^.]*"]
        lists = [stated] if isinstance(stated, str) else stated
        if stated != [r"[^.]*"] and not all(re.fullmatch(r"\w+", name) for name in lists):
            return True
        before = r"(?:^|.*?\.)" if self.content.get("layers_pattern") else r".*?\."
        first = next((match for name in lists if (match := re.match(rf"{before}{name}\.(\d+)\.", module))), None)
        return first is not None and int(first[1]) in (layers if isinstance(layers, list) else [layers])


def pattern_for(patterns: tuple[str, ...], module: str) -> str:
    """The first pattern that a module's name matches, as peft.utils.other.get_pattern_key; the name where none does."""
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), module)


def read_lora_config(folder: Path) -> LoraConfig:
    """Read and check a folder's adapter_config.json.

    Raises CheckpointError for one that is none, RequestError for a LoRA that is more than weights added to weights.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise CheckpointError(f"{str(folder)!r} has no {ADAPTER_CONFIG}, without which nobody knows its scale")
    content = read_json(path)
    kind = content.get("peft_type")
    if kind != "LORA":
        raise RequestError(f"{str(path)!r} has peft_type {kind!r}; of PEFT's adapters growkit adds LORA")
    _check_fields(str(folder), content)
    fault = TYPES.fault({"r": None, "lora_alpha": None, **content})
    if fault is not None:
        place, wanted, value = fault
        raise CheckpointError(f"{str(path)!r} should give {place[1:]} as {wanted}, not {shown(value)}")
    return LoraConfig(
        label=str(folder),
        rank=content["r"],
        alpha=content["lora_alpha"],
        ranks=_pattern(path, content, "rank_pattern"),
        alphas=_pattern(path, content, "alpha_pattern"),
        rank_stabilised=bool(content.get("use_rslora")),
        dora=bool(content.get("use_dora")),
        bias=bool(content.get("lora_bias")),
        saved=tuple(content.get("modules_to_save") or ()),
        content=content,
    )


def _check_fields(label: str, content: Mapping[str, Any]) -> None:
    """Refuse by name what makes an adapter more than weights that are added, and what is not known."""
    for key, value in content.items():
        if not value or key in READ or key in HARMLESS:  # null, false, 0 and what is empty switch nothing on
            continue
        if key in REFUSED:
            raise RequestError(f"{label!r} has {key} {shown(value)}: {REFUSED[key]}; growkit cannot add it to a model")
        raise RequestError(
            f"{label!r} has {key} {shown(value)} in {ADAPTER_CONFIG}, which growkit does not know and so cannot add"
        )
    init = str(content.get("init_lora_weights", True)).lower()
    if init.startswith(CHANGES_BASE):
        raise RequestError(
            f"{label!r} has init_lora_weights {shown(content['init_lora_weights'])}: it belongs to a base that its"
            " initialisation changed; save it with PEFT's path_initial_model_for_weight_conversion, which makes it a"
            " plain LoRA"
        )
    if init not in KEEPS_BASE:
        raise RequestError(
            f"{label!r} has init_lora_weights {shown(content['init_lora_weights'])}, which growkit does not know:"
            " whether it changed the base is not known either"
        )


def _pattern(path: Path, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table from patterns of module names to numbers.

    Patterns come from files and could take for ever to match: those that repeat groups, or much, are refused.
    """
    table: dict[str, Any] = content.get(key) or {}
    for pattern in table:
        wild = len(re.findall(r"(?<!\\)[*+{]", pattern))
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            wild = KEYS
        if len(pattern) > KEYS or wild > WILD or re.search(r"\)[*+{]", pattern):
            raise CheckpointError(
                f"{str(path)!r} has {shown(pattern)} in {key}, which is no pattern of module names that growkit follows"
            )
    return table


def _ends(module: str, names: list[str]) -> bool:
    """Whether a module is one of these, or ends in one."""
    return any(module == name or module.endswith(f".{name}") for name in names)
