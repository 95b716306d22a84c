"""Exactness: the largest relative difference of logits, for every family and kind of growth, on tiny stock models.

    python examples/benchmarks/exactness.py [FAMILY ...]

Models are float64 with every weight, bias and gain far from its default, heads tied and untied (the worse is shown). A
cell is: stock transformers as it is / with the parts that stock code computes in float32 (norms, softmax, rotary
tables) computed in float64 too, which leaves growkit's algebra alone. In brackets what the plan said, where it was not
"exact".
"""

import sys
import warnings
from pathlib import Path

import torch

from growkit import GrowkitError, grow_state_dict
from growkit.families import FAMILIES
from growkit.growth.grow_plan import grow_plan
from growkit.growth.request import grow_recipe
from growkit.growth.source_headers import Headers

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import tiny

GROWTHS = {
    "hidden x2": dict(hidden=48),
    "hidden x1.5": dict(hidden=36),
    "ffn any": dict(ffn=101),
    "heads alone": dict(heads=8),
    "kv heads": dict(kv_heads=4),
    "head_dim x2": "x2",
    "head_dim any": "+4",
    "random x2": dict(hidden=48, mapping="random"),
    "aki x2": dict(hidden=48, method="aki"),
    "identity layers": dict(layers=5, depth="identity"),
    "both": dict(hidden=48, layers=5, depth="identity"),
    "stack x2": dict(layers=6),
}


def cell(family: str, growth: dict | str) -> str:
    """One figure of the table."""
    stock, algebra, said = 0.0, 0.0, "exact"
    for tied in (True, False):
        with tiny.float32_parts_in_double():
            model = tiny.make(family, tie_word_embeddings=tied)
            own = (
                getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
            )
            request = growth if isinstance(growth, dict) else dict(head_dim={"x2": 2 * own, "+4": own + 4}[growth])
            if request == dict(heads=8) and not FAMILIES[family].own_head_dim:
                return "with hidden"
            state, config = tiny.stored(model), model.config.to_dict()
            try:
                grown = tiny.rebuild(model, *grow_state_dict(state, config, **request))
            except GrowkitError:
                return "refused"
            headers = Headers(
                label="",
                shapes={n: tuple(t.shape) for n, t in state.items()},
                dtypes={n: t.dtype for n, t in state.items()},
                config=config,
            )
            said = str(grow_plan([headers], grow_recipe(**request)).exactness)
        ids = tiny.tokens()
        with torch.no_grad():
            stock = max(stock, tiny.relative(model(ids).logits, grown(ids).logits))
            with tiny.float32_parts_in_double():
                algebra = max(algebra, tiny.relative(model(ids).logits, grown(ids).logits))
    return f"{stock:.0e} / {algebra:.0e}" + ("" if said == "exact" else f" ({said})")


def main() -> None:
    warnings.simplefilter("ignore")
    print("| family | " + " | ".join(GROWTHS) + " |\n|---" + "|---" * len(GROWTHS) + "|")
    for family in sys.argv[1:] or tiny.ALL:
        print(f"| {family} | " + " | ".join(cell(family, growth) for growth in GROWTHS.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
