"""transformers' Trainer on the batches of a growkit run. Knows the Trainer; ignorant of growkit's loop."""

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from on_gpu.bed import Bed, free, memory
from on_gpu.shapes import Shape
from trainer_losses import Ordered

from growkit.data.batches import Batches
from growkit.data.tokens import open_tokens
from growkit.growth.sources import open_source
from growkit.training.ready import mask_token


class _Clock(transformers.TrainerCallback):
    """The time after so many steps and after the last, with nothing left to do on the device: in between it never waits."""

    def __init__(self, skipped: int, last: int):
        self.asked, self.times = (skipped, last), []

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **__: Any) -> None:
        if state.global_step in self.asked:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.monotonic())


def trainer(bed: Bed, checkpoint: Path, shape: Shape, steps: int, skipped: int, compiled: bool) -> dict[str, Any]:
    """What its steps take on the same rows in the same order: mean seconds, tokens a second, peak memory, the first loss.

    With the flags that are fastest: bfloat16 on a GPU, fused AdamW, pinned batches from workers, torch_compile or not."""
    free()
    config, causal = shape.config, "MaskedLM" not in shape.config["architectures"][0]
    vocabulary = config["vocab_size"]
    masked = None if causal else (mask_token(open_source(checkpoint), vocabulary), vocabulary)
    batches = Batches(tokens=open_tokens(bed.data).ids, length=shape.length, size=shape.rows, masked=masked)
    shown = [batches.rows(step, 0, shape.rows) for step in range(steps)]
    # a causal model of transformers shifts labels itself, unless it is given shifted ones
    names = ("labels", "shift_labels") if causal else ("labels",)
    rows = [
        {"input_ids": inputs, **dict.fromkeys(names, labels)}
        for one in shown
        for inputs, labels in zip(one.inputs, one.labels)
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(bed.work / "trainer"), max_steps=steps, per_device_train_batch_size=shape.rows, learning_rate=3e-4,
        weight_decay=0.1, adam_beta2=0.95, optim="adamw_torch_fused", lr_scheduler_type="constant", save_strategy="no",
        report_to=[], disable_tqdm=True, logging_strategy="no", seed=0, bf16=bed.device == "cuda", use_cpu=bed.device == "cpu",
        torch_compile=compiled, remove_unused_columns=False, dataloader_num_workers=0 if bed.device == "cpu" else 4,
    )  # fmt: skip
    kind = getattr(transformers, config["architectures"][0])
    model, clock = kind.from_pretrained(checkpoint, dtype=torch.float32), _Clock(skipped, steps)
    own = Ordered(model, arguments, train_dataset=rows, callbacks=[clock])
    own.train()
    took = (clock.times[1] - clock.times[0]) / (steps - skipped)
    said = {"step": took, "tokens_per_second": shape.rows * shape.length / took, "first": float(own.losses[0])}
    return said | memory(bed.device)
