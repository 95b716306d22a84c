"""Made-up runs for a forecast, whose losses follow a law that is known."""

import json
import math
from pathlib import Path

from growkit.reports.growth_law import GrowthLaw

LAW = GrowthLaw(floor=1.7, scratch=(math.log(60), -0.25), grown=(math.log(50), -0.10, -0.22, 0.002))
SEQUENCE, BATCH = 10, 10
CONFIG = {"model_type": "llama", "hidden_size": 32}


def trained(steps, source=None):
    """A growkit.json's record of a run."""
    request = {"steps": steps, "seq_len": SEQUENCE, "batch_size": BATCH}
    sources = [{"name": "start", "files": {}, **({"record": source} if source else {})}]
    return {"command": "pretrain", "sources": sources, "request": request}


def grown_from(steps, **request):
    """A growkit.json's record of a growth of a model that was trained for so many steps."""
    base = trained(steps, {"command": "init", "sources": [], "request": {}})
    return {"command": "widen", "sources": [{"name": "base", "files": {}, "record": base}], "request": request}


def pilot(name, steps, base=None, decay="constant", config=CONFIG, flops=60.0, law=LAW, **request):
    """A run in the current folder, validated at these steps. base: steps of its small model; None: from scratch."""
    final = Path(name) / "final"
    final.mkdir(parents=True)
    settings = {"steps": steps[-1], "seq_len": SEQUENCE, "batch_size": BATCH, "decay": decay, "warmup": 2}
    Path(name, "run.json").write_text(json.dumps({"growkit": "0", "settings": settings}))
    per_step = SEQUENCE * BATCH
    before = None if base is None else float(base * per_step)
    lines = [
        {"kind": "val", "step": step, "loss": law.loss(before, step * per_step) if step else 9.0}
        | {"flops": flops * per_step * step, "elapsed_s": 0.1 * step}
        for step in steps
    ]
    Path(name, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = trained(steps[-1], None if base is None else grown_from(base, **request))
    (final / "growkit.json").write_text(json.dumps(record))
    (final / "config.json").write_text(json.dumps({**config, "transformers_version": name}))
    return name


def pilots():
    """Three runs that a law of two bases can be fitted to: scratch, early and late; and one of the small model."""
    pilot("scratch", [0, 1, 100, 300, 1000, 3000])
    pilot("early", [0, 100, 400, 1500], base=200)
    pilot("late", [0, 100, 400, 1500], base=2000)
    pilot("small", [0, 200], config={**CONFIG, "hidden_size": 16}, flops=20.0)
    return ["scratch", "early", "late"]
