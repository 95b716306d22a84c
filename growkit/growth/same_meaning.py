"""Whether two configs mean the same model, whichever release wrote them. Knows which settings say something of the
function that is computed; ignorant of weights and of what is made of the models.

What a setting means is transformers' to say: both configs are read by its config class, so that defaults, old names and
derived values are alike. The class is asked only where configs differ as they are written.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from growkit.families import Family
from growkit.families.stock_config import meaning
from growkit.growth.depth.by_layer import is_by_layer
from growkit.growth.width.rotary import DICTIONARIES, FRACTION

Config = Mapping[str, Any]
# parts of the names of settings of training, loading or storing, which say nothing of the function that is computed
PASSING = (
    "dropout", "pdrop", "initializer", "init_std", "layerdrop", "cache", "name_or_path", "transformers_version",
    "dtype", "implementation", "router_aux", "router_jitter", "output_", "return_dict", "chunk_size_feed", "summary_",
    "pretraining_tp", "finetuning_task", "problem_type",
)  # fmt: skip
LABELS = "label"  # of heads: what their rows are called
TOKENS = "token_id"  # settings such as eos_token_id: of texts, not of the function
ELSEWHERE = ("model_type", "architectures", "tie_word_embeddings")  # what is compared by itself


def disagreement(family: Family, one: Config, other: Config, labels: bool) -> tuple[str, Any, Any] | None:
    """(a setting that two configs do not share, its values), or None; sizes, what is said layer by layer and what says
    nothing of the function left out. labels: whether those of a classifier must agree.

    Raises CheckpointError for a config that transformers does not take.
    """
    if not any(_matters(family, key) or key in DICTIONARIES for key in _unlike(one, other)):
        return None
    (ours, _), (theirs, _) = (meaning(family.model_type, config) for config in (one, other))
    for key in sorted({*ours, *theirs}):
        matters = _matters(family, key) and not _is_note(family, key) and (labels or LABELS not in key)
        values = [_plain(family, key, settings.get(key)) for settings in (ours, theirs)]
        if matters and values[0] != values[1]:
            return key, *values
    return None


def remarks(family: Family, pair: str, one: Config, other: Config) -> list[str]:
    """What a person should know of two configs that agree: what the result has from the first, and what does not
    count. pair: names of both models, for the sentence.
    """
    unlike = [key for key in _unlike(one, other) if _matters(family, key)]
    if not unlike:
        return []
    (ours, extra), (theirs, more) = (meaning(family.model_type, config) for config in (one, other))
    notes = [
        f"{pair} have {key} {ours.get(key)!r} and {theirs.get(key)!r}; the result has the first's"
        for key in sorted({*ours, *theirs})
        if _is_note(family, key) and ours.get(key) != theirs.get(key)
    ]
    strange = sorted({*extra, *more} & {*unlike})
    if strange:
        notes.append(
            f"{pair} differ in {', '.join(strange)}, which transformers does not know of a {family.model_type}: left out"
            " of account, and the result has the first's"
        )
    return notes


def _unlike(one: Config, other: Config) -> Iterator[str]:
    """Keys that two configs do not have alike, as they are written."""
    return (key for key in {*one, *other} if key not in one or key not in other or one[key] != other[key])


def _matters(family: Family, key: str) -> bool:
    """Whether a key may say something of the function, or of what a result is told."""
    if key in family.size_keys or key in ELSEWHERE or is_by_layer(key) or key == family.windows.full_layers:
        return False
    return not key.startswith("_") and not any(word in key for word in PASSING)


def _is_note(family: Family, key: str) -> bool:
    """Whether a difference is only said: of token ids, and of how long texts were; where positions are counted from
    one, or lie in a table, they matter.
    """
    if TOKENS in key:
        return key != family.positions.counted_after
    learned = any("position" in axes for axes in family.tensors.values())
    return key in family.keys("position") and not learned


def _plain(family: Family, key: str, value: Any) -> Any:
    """A setting without what says nothing: of rotary positions the type's first name, and the fraction all have."""
    if key not in DICTIONARIES or not isinstance(value, dict):
        return value
    usual = {FRACTION: family.rotary.fraction if family.rotary is not None else 1.0}
    return {k: v for k, v in value.items() if v is not None and k != "type" and usual.get(k) != v}
