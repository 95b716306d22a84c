"""EXAONE 4: a norm on what each block puts out and one over each head; where some layers have a sliding window, only
those have rotary positions. Data only.
"""

from growkit.families.llama import AFTER_BLOCKS, HEAD_NORM, NORMED_AFTER, llama_like
from growkit.families.schema import RMS, AttentionWindows, Norms

EXAONE4 = llama_like(
    "exaone4",
    "Exaone4",
    {**NORMED_AFTER, **HEAD_NORM},
    norms=Norms(kind=RMS, on_heads=True, branch=AFTER_BLOCKS),
    windows=AttentionWindows(listed=("layer_types",)),
    switches={},
    defaults={"num_key_value_heads": 32},
    small={"sliding_window": 6, "sliding_window_pattern": 2},
    variants=({"sliding_window": None, "layer_types": ["full_attention"] * 3, "head_dim": 8},),
)

FAMILIES = (EXAONE4,)
