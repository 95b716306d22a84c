"""A model's config.json, read: the keys that families share hold what they should. Knows these keys; ignorant of
families, of the sizes that a family's table asks for, and of what any key means.
"""

from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import AnyOf, FieldKind, Fields, Flag, ListOf, Null, Number, Text, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.errors import CheckpointError
from growkit.families.text_part import BESIDE, flattened
from growkit.limits import AXIS, EXPERTS, LAYERS

COUNT, RATE = Null(Whole(1, AXIS)), Null(Number(0, 1e30))
TOKEN = Whole(-1, AXIS)  # Llama's first configs say -1 for none
DROPOUTS = (  # the families' words for it
    *("attention_dropout", "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "layerdrop"),
)
KINDS: dict[str, FieldKind] = {
    "architectures": Null(ListOf(Text(r"\w+", "the name of a class"))),
    "torch_dtype": Null(Text()),
    "dtype": Null(Text()),
    "hidden_act": Null(Text()),
    "layer_types": Null(ListOf(Text())),
    "mlp_only_layers": Null(ListOf(Whole(0, LAYERS))),
    "rope_scaling": Null(Fields({})),
    "rope_parameters": Null(Fields({})),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "vocab_size", "type_vocab_size"), COUNT),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), Null(Whole(1, LAYERS))),
    **dict.fromkeys(("sliding_window", "max_window_layers"), Null(Whole(-1, 1 << 40))),
    **dict.fromkeys(("num_local_experts", "num_experts", "num_experts_per_tok"), Null(Whole(0, EXPERTS))),
    **dict.fromkeys(("initializer_range", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), RATE),
    **dict.fromkeys(DROPOUTS, Number(0, 1)),
    "classifier_dropout": Null(Number(0, 1)),
    **dict.fromkeys(("tie_word_embeddings", "is_decoder", "use_sliding_window", "norm_topk_prob"), Null(Flag())),
    **{f"{kind}_token_id": Null(AnyOf((TOKEN, ListOf(TOKEN)))) for kind in ("pad", "bos", "eos", "mask", "cls", "sep")},
}
CONFIG_FIELDS = Fields(KINDS)


def read_model_config(path: Path) -> dict[str, Any]:
    """A config.json, with the settings of a text model inside a larger one as if they were all (flattened).

    Raises CheckpointError where it cannot be read, or a key holds what it cannot mean.
    """
    stored = {key: value for key, value in read_json(path).items() if key != BESIDE}  # which is growkit's own
    content = checked(flattened(stored), CONFIG_FIELDS, path)
    for key, value in content.items():
        if _holds_nan(value):
            raise CheckpointError(
                f"{str(path)!r} should have {key} without NaN, which is no number; mend or fetch it again"
            )
    return content


def _holds_nan(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_nan, value.values() if isinstance(value, dict) else value))
    return value != value
