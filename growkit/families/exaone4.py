"""EXAONE 4: a norm on what each block puts out and one over each head; where some layers have a sliding window, only
those have rotary positions. Data only.
"""

from growkit.families.llama import AFTER_BLOCKS, DECODER, HEAD_NORM, llama_like
from growkit.families.modules import norm
from growkit.families.schema import RMS, AttentionWindows, Norms

EXAONE4 = llama_like(
    "exaone4",
    "Exaone4",
    {
        **{name: axes for name, axes in DECODER.items() if ".input_layernorm." not in name},
        **norm("layers.{layer}.post_feedforward_layernorm"),
        **HEAD_NORM,
    },
    norms=Norms(kind=RMS, on_heads=True, branch=AFTER_BLOCKS),
    windows=AttentionWindows(listed=("layer_types",)),
    switches={},
    defaults={"num_key_value_heads": 32},
    small={"sliding_window": 6, "sliding_window_pattern": 2},
    variants=({"sliding_window": None, "layer_types": ["full_attention"] * 3, "head_dim": 8},),
)

FAMILIES = (EXAONE4,)
