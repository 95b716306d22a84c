"""The arms of the study: where each model of the target's size begins, and how it is trained. Data, and nothing else.

An arm grows one of three sources, which are trained for equally many tokens: `narrow` has the target's layers, `shallow`
its width, `small` neither. What it says of growth goes to `growkit.grow`, of training to `growkit.pretrain`.
"""

from dataclasses import dataclass, field, replace
from typing import Any

NARROW, SHALLOW, SMALL = "narrow", "shallow", "small"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to a model of the target's size.

    start: init (random weights), grow. source: which one; None: no trained model. layers: of an init that a schedule
    deepens; None: the target's. grow, train: options of growkit.grow and of growkit.pretrain. learn: steps for which
    maps learn, as a share of those that follow; their operations count. relax: share of the steps over which
    multipliers relax. inherits: its source teaches, live. stored: it taught before, all of the data, and a run pays for
    what it reads of that. source_optimizer: what trained the source. rates_of: the arm whose pilots choose the learning
    rate. against: the arm from scratch it is compared with.
    """

    start: str = "grow"
    source: str | None = None
    layers: int | None = None
    grow: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    learn: float | None = None
    relax: float | None = None
    inherits: bool = False
    stored: bool | None = None
    source_optimizer: str = "adamw"
    rates_of: str
    against: str = "scratch"


def _grown(source: str, rates_of: str, train: dict[str, Any] | None = None, **more: Any) -> Arm:
    """A growth; its optimizer begins anew where nothing else is said."""
    own = {
        name: more.pop(name)
        for name in ("learn", "relax", "inherits", "stored", "source_optimizer", "against")
        if name in more
    }
    return Arm(source=source, rates_of=rates_of, train=train or {}, grow={"optimizer": "none", **more}, **own)


CARRIED, TWO_STAGE, MUON = {"optimizer": "auto"}, {"schedule": "two-stage"}, {"optimizer": "muon"}
EXACT, OFF, WSD = {"multipliers": "exact"}, {"multipliers": "off"}, {"decay": "wsd"}
WIDE, DEEP, BOTH = "FPI", "stack", "FPI + stack"  # whose pilots choose the rate of all that start alike
WIDE_ON, BOTH_ON = "FPI, carried state, exact", "FPI + stack, carried state, exact"
MUON_ON = "FPI + stack, Muon, carried state, exact"
BY_MUON = {"source_optimizer": "muon", "against": "scratch, Muon"}

ARMS: dict[str, Arm] = {
    "scratch": Arm(start="init", rates_of="scratch"),
    # width
    "direct copy": _grown(NARROW, "direct copy", method="direct-copy"),
    "FPI, equal split": _grown(NARROW, WIDE, noise=0.0),
    "FPI": _grown(NARROW, WIDE, noise=0.5),
    "FPI, random map": _grown(NARROW, WIDE, mapping="random"),
    "shrink-perturb": _grown(NARROW, "shrink-perturb", method="shrink-perturb"),
    "shrink-perturb, keep 0.6": _grown(NARROW, "shrink-perturb", method="shrink-perturb", keep=0.6),
    "AKI": _grown(NARROW, "AKI", method="aki"),
    "bert2BERT (AKI, two-stage)": _grown(NARROW, "AKI", TWO_STAGE, method="aki"),
    "FPI, two-stage": _grown(NARROW, WIDE, TWO_STAGE),
    "FPI, carried state, exact": _grown(NARROW, WIDE_ON, EXACT, **CARRIED),
    "FPI, carried state, relax": _grown(NARROW, WIDE_ON, relax=0.5, **CARRIED),
    "FPI, carried state, off": _grown(NARROW, WIDE_ON, OFF, **CARRIED),
    "learned (LiGO)": _grown(NARROW, WIDE, learn=0.05),
    # depth
    "stack": _grown(SHALLOW, DEEP, depth="stack"),
    "interleave": _grown(SHALLOW, DEEP, depth="interleave"),
    "middle": _grown(SHALLOW, DEEP, depth="middle"),
    "identity": _grown(SHALLOW, DEEP, depth="identity"),
    "stack, two-stage": _grown(SHALLOW, DEEP, TWO_STAGE, depth="stack"),
    "stack, carried state": _grown(SHALLOW, "stack, carried state", EXACT, depth="stack", **CARRIED),
    "StackBERT": Arm(start="init", layers=1, train={"schedule": "stackbert"}, rates_of="scratch"),
    "MSLT": Arm(start="init", layers=1, train={"schedule": "mslt"}, rates_of="scratch"),
    "late jump": Arm(start="init", layers=1, train={"schedule": "late"}, rates_of="scratch"),
    "scratch, wsd": Arm(start="init", train=WSD, rates_of="scratch"),
    "stack, wsd": _grown(SHALLOW, DEEP, WSD, depth="stack", against="scratch, wsd"),
    # both
    "FPI + stack": _grown(SMALL, BOTH),
    "FPI + stack, carried state, exact": _grown(SMALL, BOTH_ON, EXACT, **CARRIED),
    "FPI + stack, carried state, relax": _grown(SMALL, BOTH_ON, relax=0.5, **CARRIED),
    "FPI + stack, carried state, off": _grown(SMALL, BOTH_ON, OFF, **CARRIED),
    "FPI + stack, carried state, wsd": _grown(SMALL, BOTH_ON, WSD, relax=0.5, against="scratch, wsd", **CARRIED),
    "FPI + interleave": _grown(SMALL, BOTH, depth="interleave"),
    "FPI + identity": _grown(SMALL, BOTH, depth="identity"),
    "shrink-perturb + stack": _grown(SMALL, BOTH, method="shrink-perturb"),
    "shrink-perturb + stack, keep 0.6": _grown(SMALL, BOTH, method="shrink-perturb", keep=0.6),
    "direct copy + stack": _grown(SMALL, BOTH, method="direct-copy"),
    "AKI + stack": _grown(SMALL, "AKI + stack", method="aki"),
    "AKI + stack, two-stage": _grown(SMALL, "AKI + stack", TWO_STAGE, method="aki"),
    "learned (LiGO) + stack": _grown(SMALL, BOTH, learn=0.05),
    # a teacher
    "inherit, live": Arm(start="init", source=SMALL, inherits=True, rates_of="scratch"),
    "AKI + stack, inherit, live": _grown(SMALL, "AKI + stack", method="aki", inherits=True),
    "inherit, stored": Arm(start="init", source=SMALL, stored=True, rates_of="scratch"),
    "AKI + stack, inherit, stored": _grown(SMALL, "AKI + stack", method="aki", stored=True),
    # Muon
    "scratch, Muon": Arm(start="init", train=MUON, rates_of="scratch, Muon", against="scratch, Muon"),
    "FPI + stack, Muon": _grown(SMALL, "FPI + stack, Muon", MUON, **BY_MUON),
    "FPI + stack, Muon, carried state, exact": _grown(SMALL, MUON_ON, MUON | EXACT, **BY_MUON, **CARRIED),
}

# two-stage training after every start that has a plain run
ARMS |= {
    f"{name}, two-stage": replace(arm, train=TWO_STAGE)
    for name, arm in ARMS.items()
    if arm.start == "grow" and arm.grow["optimizer"] == "none" and not arm.train
    if not (arm.inherits or arm.stored or name in ("AKI", "FPI", "stack", "AKI + stack"))
}

# share of compute saved, as published: the source left out unless said; sizes and texts are far from a small study's
PUBLISHED = (
    ("bert2BERT (AKI, two-stage)", "BERT 12 x 512 to 12 x 768", "45.2 %", "arXiv 2110.07143"),
    ("AKI", "GPT 12 x 512 to 12 x 768", "47 %", "arXiv 2110.07143"),
    ("FPI", "BERT 12 x 512 to 12 x 768", "30.4 %", "arXiv 2110.07143"),
    ("AKI", "BERT 12 x 512 to 12 x 768", "38.4 %", "arXiv 2110.07143"),
    ("StackBERT", "BERT-Base, as bert2BERT ran it", "24.3 %", "arXiv 2110.07143"),
    ("MSLT", "BERT-Base, as bert2BERT ran it", "10.7 %", "arXiv 2110.07143"),
    ("learned (LiGO)", "BERT 6 x 512 to 12 x 768", "44.7 %", "arXiv 2303.00980"),
    ("inherit, live", "RoBERTa 125 M to 355 M, steps", "27.3 %", "arXiv 2105.13880"),
    ("stack", "7 B; a speed-up of 54.6 %, source included", "35.3 %", "arXiv 2405.15319"),
    ("FPI, exact (LEMON)", "pre-LN BERT", "33.2 %", "arXiv 2310.07999"),
)
