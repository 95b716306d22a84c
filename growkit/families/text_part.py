"""Config.json files that have the settings of a text model inside those of a larger one, as one flat dictionary, and
back. Knows the key of such a part; ignorant of families.

All that reads and grows a config sees the text model's settings as if they were all: what stands beside them is under
one key, "beside", as it was.
"""

from collections.abc import Mapping
from typing import Any

TEXT, TOWER, BESIDE = "text_config", "vision_config", "beside"
# what the whole model's config says for both
WHOLE = (
    "architectures", "model_type", "tie_word_embeddings", "dtype", "torch_dtype", "quantization_config", "auto_map",
    "transformers_version", "transformers_weights",
)  # fmt: skip
BOTH = ("tie_word_embeddings", "dtype", "torch_dtype")  # of these, what the text model's own settings may say or repeat
OF_TOWERS = ("vision", "image", "video")  # words in keys of what is not the text model's, where all stand together

Config = Mapping[str, Any]


def flattened(config: Config) -> dict[str, Any]:
    """A config with its text model's settings in the place of the whole model's; one that has no such part as it is."""
    text, other = config.get(TEXT), {key: value for key, value in config.items() if key not in (TEXT, *WHOLE)}
    if text is None and isinstance(config.get(TOWER), dict):  # transformers 4 wrote those of Qwen2.5-VL together
        text = {key: value for key, value in other.items() if not any(word in key for word in OF_TOWERS)}
        other = {key: value for key, value in other.items() if key not in text}
    if not isinstance(text, dict):
        return dict(config)
    whole = {key: text[key] for key in BOTH if key in text} | {key: config[key] for key in WHOLE if key in config}
    inner = {key: value for key, value in text.items() if key not in (*WHOLE, BESIDE)}
    return {**whole, **inner, BESIDE: {**other, TEXT: {key: value for key, value in text.items() if key in WHOLE}}}


def nested(config: Config) -> dict[str, Any]:
    """What `flattened` made, as transformers has it; a config without such a part as it is."""
    if BESIDE not in config:
        return dict(config)
    other = config[BESIDE]
    own = {key: config[key] if key in BOTH else value for key, value in other[TEXT].items()}
    inner = {key: value for key, value in config.items() if key not in (BESIDE, *WHOLE)}
    whole = {key: value for key, value in config.items() if key in WHOLE}
    return {**whole, **{key: value for key, value in other.items() if key != TEXT}, TEXT: {**own, **inner}}


def changes(old: Config, new: Config) -> dict[str, Any]:
    """Settings that become others; those inside what stands beside a text model one by one, as "a.b"."""
    found = {key: value for key, value in new.items() if key != BESIDE and old.get(key) != value}
    return found | (_inside(old.get(BESIDE, {}), new[BESIDE], "") if BESIDE in new else {})


def _inside(old: Config, new: Config, place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            found |= _inside(old[key], value, f"{place}{key}.")
        elif old.get(key) != value:
            found[f"{place}{key}"] = value
    return found


def special_tokens(config: Config) -> list[Any]:
    """Ids that stand for an image, or for where one begins, beside a text model."""
    return [value for key, value in config.get(BESIDE, {}).items() if key.endswith(("_token_id", "_token_index"))]


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Write a setting under a key, or under "a.b" for b inside a."""
    *places, last = key.split(".")
    for place in places:
        config = config.setdefault(place, {})
    config[last] = value
