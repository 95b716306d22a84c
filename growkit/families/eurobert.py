"""EuroBERT: Llama's layers, seeing both ways, that fill in masked tokens. Data only."""

from growkit.families.bert import TOKEN_LABELS
from growkit.families.llama import DECODER, llama_like
from growkit.families.modules import linear

EUROBERT = llama_like(
    "eurobert",
    "EuroBert",
    {
        **{
            name: axes
            for name, axes in DECODER.items()
            if not name.startswith(("score.", "classifier.", "qa_outputs."))
        },
        "lm_head.bias": "vocab",
        **linear("dense", "pooled", "hidden"),
        **linear("classifier", "label", "pooled"),
    },
    task_tensors=TOKEN_LABELS,
    causal=False,
    packs=False,
    hidden_by_heads=True,
    prefixes=("model.",),
    small={"attention_bias": True, "mlp_bias": True},
    variants=({"attention_bias": False, "mlp_bias": False, "head_dim": 8},),
)

FAMILIES = (EUROBERT,)
