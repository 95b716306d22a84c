"""Does growkit's loop train as transformers' Trainer does? Both on the same batches, settings and model; the losses
side by side.

    python examples/benchmarks/trainer_losses.py      # needs accelerate

A constant rate without warm-up: the Trainer's first warm-up step has rate 0, growkit's the first fraction.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import growkit
from growkit.data.batches import Batches

LENGTH, BATCH, STEPS, RATE = 32, 8, 50, 1e-3


class Ordered(transformers.Trainer):
    """The Trainer, reading its data in order and keeping each step's loss, where it is: nothing waits for a device."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.losses: list[torch.Tensor] = []

    def _get_train_sampler(self, *_: Any, **__: Any) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*given, **named)
        self.losses.append(loss.detach())
        return loss


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=97, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=64,
        )  # fmt: skip
        transformers.LlamaForCausalLM(config).save_pretrained(work / "model")
        tokens = (np.cumsum(np.random.default_rng(0).integers(0, 3, 9000)) % 90).astype("<u2")
        tokens.tofile(work / "tokens.bin")
        ours: list[float] = []
        growkit.pretrain(
            work / "model", work / "tokens.bin", work / "run", steps=STEPS, seq_len=LENGTH, batch_size=BATCH, lr=RATE,
            warmup=0, decay="constant", device="cpu", watch=lambda line: ours.append(line.get("loss", 0.0)),
        )  # fmt: skip
        batches = Batches(tokens=tokens, length=LENGTH, size=BATCH)
        # the Trainer's model shifts labels itself, so a window goes in with the token behind it
        shown = [batches.rows(step, 0, BATCH) for step in range(STEPS)]
        pairs = [pair for batch in shown for pair in zip(batch.inputs, batch.labels)]
        windows = [torch.cat([inputs, labels[-1:]]) for inputs, labels in pairs]
        arguments = transformers.TrainingArguments(
            output_dir=str(work / "trainer"), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=RATE,
            weight_decay=0.1, adam_beta2=0.95, optim="adamw_torch_fused", lr_scheduler_type="constant", use_cpu=True,
            save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        model = transformers.AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
        trainer = Ordered(model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in windows])
        trainer.train()
    ours, theirs = ours[:STEPS], [float(loss) for loss in trainer.losses]
    for step in (0, 9, 24, 49):
        print(f"step {step + 1:3}  growkit {ours[step]:.6f}  Trainer {theirs[step]:.6f}")
    print(f"largest difference over {STEPS} steps: {max(abs(a - b) for a, b in zip(ours, theirs)):.1e}")


if __name__ == "__main__":
    main()
