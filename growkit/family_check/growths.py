"""Which growths a small model is put through: each axis alone, all together, depth; by multiples and by other numbers.
Knows sizes; ignorant of models and of what comes out.
"""

from collections.abc import Mapping
from typing import Any

from growkit.families.small_sizes import TOP_K

GROWN = dict[str, Any]  # keywords of grow_state_dict


def growths_to_try(sizes: Mapping[str, int], own_ffn: bool) -> dict[str, GROWN]:
    """Name -> what is asked, of a model of these sizes. own_ffn: whether its config states ffn. Some of
    them no model of some families can have: that is for growth to refuse, in a sentence.
    """
    hidden, heads, kv, dim = sizes["hidden"], sizes["head"], sizes["kv_head"], sizes["head_dim"]
    tries: dict[str, GROWN] = {
        "hidden x2": dict(hidden=2 * hidden),
        "hidden x1.5": dict(hidden=3 * hidden // 2),
        "hidden, heads kept": dict(hidden=2 * hidden, heads=heads),
        "heads x2": dict(heads=2 * heads),
        "heads x2, random": dict(heads=2 * heads, mapping="random"),
        "head_dim x2": dict(head_dim=2 * dim),
        "head_dim +4": dict(head_dim=dim + 4),
        "ffn": dict(ffn=2 * sizes["ffn"] + 21),  # no multiple
        "hidden and ffn": dict(hidden=2 * hidden, ffn=3 * sizes["ffn"] + 11),
        "layers": dict(layers=sizes["layer"] + 1, depth="identity"),
        "all": dict(hidden=2 * hidden, ffn=3 * sizes["ffn"] + 11, layers=sizes["layer"] + 2, depth="identity"),
        "hidden x2, random": dict(hidden=2 * hidden, mapping="random"),
        "hidden x2, aki": dict(hidden=2 * hidden, method="aki"),
    }
    if not own_ffn:
        for growth in tries.values():
            growth.pop("ffn", None)
        del tries["ffn"], tries["hidden and ffn"]
    if "expert" in sizes:  # of which a token takes all copies of what it took
        tries["experts x2"] = dict(experts=2 * sizes["expert"], top_k=2 * TOP_K)
    if kv != heads:
        group = heads // kv
        tries |= {
            "heads in groups": dict(heads=kv * (group + 1)),
            "kv heads to heads": dict(kv_heads=heads),
            "kv heads and heads": dict(heads=2 * heads, kv_heads=2 * kv),
            "kv heads dealt": dict(heads=2 * heads, kv_heads=heads),
            "groups widen": dict(heads=3 * heads, kv_heads=2 * kv),
        }
    return tries
