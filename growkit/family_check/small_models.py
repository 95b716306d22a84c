"""Small stock models of any family, with every weight, gain and bias far from its default. Knows transformers' classes;
ignorant of growth.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from growkit.families.schema import Family
from growkit.families.small_sizes import SMALL, small_settings
from growkit.families.stacked import join_experts
from growkit.families.stock_config import hushed
from growkit.families.text_part import nested, put

# transformers' lists of its classes, the language models' first
_CAUSAL = ("MODEL_FOR_CAUSAL_LM",)
_FILLING = ("MODEL_FOR_MASKED_LM",)
_BOTH = ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_SPEECH_SEQ_2_SEQ")  # an encoder and a decoder
_TOWERED = ("MODEL_FOR_IMAGE_TEXT_TO_TEXT",)  # a text model beside a tower
_OTHERS = (
    "MODEL", "MODEL_FOR_PRETRAINING", "MODEL_FOR_SEQUENCE_CLASSIFICATION", "MODEL_FOR_TOKEN_CLASSIFICATION",
    "MODEL_FOR_QUESTION_ANSWERING", "MODEL_FOR_MULTIPLE_CHOICE", "MODEL_FOR_IMAGE_CLASSIFICATION",
    "MODEL_FOR_MASKED_IMAGE_MODELING", "MODEL_FOR_AUDIO_CLASSIFICATION",
)  # fmt: skip


def stock_classes(family: Family) -> tuple[Any, ...]:
    """The classes that transformers has for a family, its language model first: those of whole models and of tasks."""
    import transformers
    from transformers.models.auto import modeling_auto

    if family.pairs:  # transformers lists classes of one of the towers too
        return tuple(getattr(transformers, name) for _, name in family.architectures)
    names: list[str] = []
    language = _TOWERED if family.beside else _BOTH if family.stacks else _CAUSAL if family.causal else _FILLING
    for kind in (*language, *_OTHERS):
        listed = getattr(modeling_auto, f"{kind}_MAPPING_NAMES").get(family.model_type, ())
        names += [listed] if isinstance(listed, str) else [*listed]
    if not family.heads:  # towers, of which transformers lists not all
        names += [name for _, name in family.architectures]
    return tuple(getattr(transformers, name) for name in dict.fromkeys(names))


def small_config(family: Family, **changes: Any) -> Any:
    """The stock config of a small model; `changes` are settings of it. Raises what transformers does of a bad one."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings = small_settings(family)
    for key, value in changes.items():
        put(settings, key, value)
    with hushed():
        config = CONFIG_MAPPING[family.model_type](**nested(settings))
        if (getattr(config.get_text_config(), "pad_token_id", None) or 0) < SMALL["vocab"]:
            return config
        return type(config)(**nested({"pad_token_id": 0, **settings}))


def small_model(
    family: Family, architecture: Any = None, seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any
) -> Any:
    """A shaken small model that does not train; `changes` go into its config. architecture: a class of transformers, by
    default the language model's."""
    kind = stock_classes(family)[0] if architecture is None else architecture
    with hushed():
        model = kind(small_config(family, **changes))
    return shaken(one_by_one(family, model).to(dtype), seed, family.is_buffer).eval()


def shaken(model: torch.nn.Module, seed: int, stays: Callable[[str], bool] = lambda _: False) -> torch.nn.Module:
    """Move every parameter far from its default: gains about 1 with spread, everything else a third of a normal. stays:
    whether one of a name does not, since transformers computes it."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if stays(name):
            continue
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        is_gain = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = ((0.8 if is_gain else 0.0) + 0.33 * noise).to(parameter.dtype)
    return model


def one_by_one(family: Family, model: Any) -> Any:
    """Let a mixture compute its experts one after another: stock code has no other way in float64."""
    if family.is_moe:
        model.set_experts_implementation("eager")
    return model


def stored(family: Family, model: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A model's tensors, or others by the names of its parameters, under the names a file has: each expert's its
    own."""
    from transformers.core_model_loading import revert_weight_conversion

    named = dict(model.state_dict() if tensors is None else tensors)
    return revert_weight_conversion(model, named) if family.is_moe or _by_file(family) else named


def rebuilt(
    family: Family,
    model: Any,
    state: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    dtype: torch.dtype = torch.float64,
) -> Any:
    """A model of the same class with another state and config. Raises AssertionError where a key is not matched."""
    with hushed():
        settings = type(model.config).from_dict(nested(config))
        if _by_file(family):
            return _from_file(type(model), state, settings, dtype)
        grown = one_by_one(family, type(model)(settings).to(dtype).eval())
    missing, unexpected = grown.load_state_dict(join_experts(family, state), strict=False)
    tied = set(getattr(grown, "all_tied_weights_keys", {}))
    missing = [name for name in missing if name not in tied and not family.is_buffer(name)]
    assert not unexpected and not missing, (missing, unexpected)
    grown.tie_weights()
    return grown


def _by_file(family: Family) -> bool:
    """Whether names in a file are not those of the live model: transformers knows both."""
    return family.reads_pixels or family.beside is not None


def _from_file(kind: Any, state: Mapping[str, torch.Tensor], config: Any, dtype: torch.dtype) -> Any:
    """A model as transformers loads it from a file of this state. Raises AssertionError where a key is not matched."""
    import transformers

    transformers.logging.disable_progress_bar()
    grown, info = kind.from_pretrained(
        None, config=config, state_dict=dict(state), dtype=dtype, output_loading_info=True
    )
    wrong = {name: info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}
    assert not wrong, wrong
    return grown.eval()
