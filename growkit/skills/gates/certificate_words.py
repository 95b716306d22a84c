"""What certificate.json of a bundle of skills may say, and the names of what lies beside it. Knows keys and ranges;
ignorant of files and of tensors.
"""

from typing import Any

from growkit.checkpoint.fields import Fields, ListOf, MapOf, Null, Number, OneOf, Text, Whole
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG, PROVENANCE
from growkit.data.domains import NAME
from growkit.limits import LAYERS, SEEDS, TOKENS
from growkit.models.small.small_file import SMALL, SMALL_WEIGHTS
from growkit.skills.gates.certify import Promise
from growkit.skills.gates.conformal import CONFIDENCE
from growkit.skills.gates.own_file import GATE, GATE_WEIGHTS
from growkit.skills.gates.own_texts import MOST_TEXTS
from growkit.skills.gates.shrunk_metric import LEAST_SHRINKAGE
from growkit.skills.skill_file import SKILL, SKILL_WEIGHTS

FORMAT, SKILLS, MOST_SKILLS, MOST_GENERAL = 2, "skills", 256, 1 << 20
LEAST_ALPHA, LEAST_STRENGTH, MOST_STRENGTH = 1e-5, -16.0, 16.0
AGAIN = "make the bundle again with growkit skill plug"
# of a skill's folder; the first that are there are its weights and what they mean, the rest says what it is
KEPT = (
    ADAPTER, ADAPTER_CONFIG, SMALL, SMALL_WEIGHTS, SKILL, SKILL_WEIGHTS, GATE, GATE_WEIGHTS, PROVENANCE, "README.md"
)  # fmt: skip
_HASH = Text(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal")
_NAME = Text(NAME, "a name of letters, digits, '_', '.' and '-'")
_COUNT = Whole(0, MOST_GENERAL)
_PROMISE = Fields(
    {
        "alpha": Number(LEAST_ALPHA, 0.5),
        "texts": Whole(1, MOST_GENERAL),
        "order": Whole(1, MOST_GENERAL),
        "fresh": _COUNT,
        "opened": _COUNT,
        "bound": Null(Number(0, 1)),
        "confidence": Number(0, 1),
    },
    ("alpha", "texts", "order", "fresh", "opened", "bound", "confidence"),
)
_OWN = Fields({"texts": Whole(1, MOST_TEXTS), "held": Whole(1, MOST_TEXTS), "opened": _COUNT, "others": _COUNT})
_SKILL = Fields(
    {
        "name": _NAME,
        "strength": Number(LEAST_STRENGTH, MOST_STRENGTH),
        "threshold": Number(0),
        "limit": Number(0),
        "shrinkage": Number(LEAST_SHRINKAGE, 1),
        "files": MapOf(_HASH),
        "own": _OWN,
    },
    ("name", "strength", "threshold", "limit", "shrinkage", "files"),
)
SCHEMA = Fields(
    {
        "format": OneOf([FORMAT]),
        "base": Fields({"name": Text(), "source": Text(), "files": MapOf(_HASH)}, ("name", "source", "files")),
        "layer": Whole(1, LAYERS),
        "seed": Whole(*SEEDS),
        "promise": _PROMISE,
        "general": Fields(
            {
                "texts": _COUNT,
                "contrast": _COUNT,
                "documents": Whole(1, TOKENS),
                "tokens": Whole(1, TOKENS),
                "sha256": _HASH,
            }
        ),
        "skills": ListOf(_SKILL, 1, MOST_SKILLS),
        "together": ListOf(ListOf(_NAME, 2, 2), 0, MOST_SKILLS**2),
        "tensors": _HASH,
    },
    ("format", "base", "layer", "promise", "skills", "together", "tensors"),
)


def promise_words(promise: Promise) -> dict[str, Any]:
    """A promise as certificate.json has it. texts: how many set the thresholds, each the order-th smallest score of
    them. fresh: how many confirm it, of which `opened` open a skill: a share of at most `bound`, with `confidence`."""
    return {
        "alpha": promise.alpha, "texts": len(promise.calibration), "order": promise.order,
        "fresh": len(promise.fresh), "opened": promise.hits, "bound": promise.bound, "confidence": CONFIDENCE,
    }  # fmt: skip
