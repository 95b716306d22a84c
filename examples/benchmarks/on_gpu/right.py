"""Is what a GPU computes right? Growth on a billion parameters, evaluation and training beside the CPU's, a run that is
killed, and every kind of run, compiled and not."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from big import source_at
from on_gpu.bed import Bed, steps_of
from on_gpu.shapes import bert, gpt2, llama
from safetensors.torch import load_file

import growkit

LENGTH, ROWS = 64, 8
TOKENS = 256  # that logits are compared on
COMPILED = (
    "plain",
    "prefixes of a first stage",
)  # kinds of run that a CPU, which takes a minute for each, compiles too
BATCH: dict[str, Any] = dict(seq_len=LENGTH, batch_size=ROWS)
KILLED = f"""
import os, signal, sys, growkit
def watch(line):
    if line["kind"] == "train" and line["step"] == 14:
        os.kill(os.getpid(), signal.SIGKILL)
growkit.pretrain(*sys.argv[1:4], steps=20, seq_len={LENGTH}, batch_size={ROWS}, device=sys.argv[4], save_every=5, watch=watch)
"""


def right(bed: Bed) -> None:
    """All checks of this part."""
    bed.check("1 B grown wider and deeper", 170, lambda: grown(bed))
    small = bed.model("gpt2", gpt2(128, 4, LENGTH, 600 if bed.small else 16384))
    bed.check("eval, float32", 20, lambda: evaluated(bed, small))
    bed.check("20 steps, float32", 20, lambda: trained(bed, small))
    bed.check("killed and taken up", 40, lambda: taken_up(bed, small))
    for name, (model, options) in kinds(bed).items():
        ways = {"plain": False} | ({"compiled": True} if not bed.small or name in COMPILED else {})
        bed.check(f"runs: {name}", 25, partial(runs, bed, model, options, ways))


def grown(bed: Bed) -> dict[str, Any]:
    """A Llama of 1.1 B parameters twice as wide, and twice as deep by layers that do nothing: proved by growkit in float32,
    and the logits of both on this device, largest difference over the largest logit, in float32 and bfloat16."""
    source = bed.work / "1b"
    source_at(source, small=bed.small)
    hidden, layers = (1024, 16) if bed.small else (4096, 44)
    said: dict[str, Any] = {}
    ways: dict[str, Callable[[Path], Any]] = {
        "wider": lambda out: growkit.widen(source, out, hidden=hidden, noise=0.0),
        "deeper": lambda out: growkit.stack(source, out, layers=layers, method="identity"),
    }
    before = {dtype: logits(source, dtype, bed.device) for dtype in (torch.float32, torch.bfloat16)}
    for name, grow in ways.items():
        out, began = bed.work / name, time.monotonic()
        grow(out)
        said[f"{name}_seconds"] = time.monotonic() - began
        proof = growkit.verify(source, out)
        said |= {f"{name}_proved": proof.ok, f"{name}_relative": proof.relative}
        for dtype, theirs in before.items():
            ours = logits(out, dtype, bed.device)
            said[f"{name}_{str(dtype)[6:]}"] = float((ours - theirs).abs().max() / theirs.abs().max())
        shutil.rmtree(out)
    shutil.rmtree(source)
    exact = all(
        said[f"{name}_proved"] and said[f"{name}_float32"] < 1e-4 and said[f"{name}_bfloat16"] < 0.1 for name in ways
    )
    return {"ok": exact, **said}


def logits(folder: Path, dtype: torch.dtype, device: str) -> torch.Tensor:
    """(1, TOKENS, vocabulary) float32, on the CPU."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    ids = torch.randint(100, 600, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids.to(device)).logits.float().cpu()


def evaluated(bed: Bed, model: Path) -> dict[str, Any]:
    """The loss that growkit eval measures here, and on the CPU."""
    here, there = (
        growkit.evaluate(model, bed.data, limit=8192, context=LENGTH, device=device).loss
        for device in (bed.device, "cpu")
    )
    return {"ok": abs(here - there) < 1e-4, "loss": here, "cpu": there}


def losses(bed: Bed, model: Path, steps: int, device: str | None = None, **options: Any) -> list[float]:
    """Of the steps of a run in float32."""
    on = replace(bed, device=device or bed.device)
    lines = steps_of(on, model, steps, precision="float32", **{**BATCH, "lr": 1e-3, **options})
    if "teacher" in options and not lines[0]["alpha"]:
        raise RuntimeError("the teacher does not teach")
    return [line["loss"] for line in lines]


def trained(bed: Bed, model: Path) -> dict[str, Any]:
    """The losses of 20 steps here and on the CPU."""
    here, there = losses(bed, model, 20), losses(bed, model, 20, "cpu")
    apart = max(abs(a - b) for a, b in zip(here, there))
    return {"ok": apart < 1e-3 and here[-1] < here[0], "apart": apart, "first": here[0], "last": here[-1]}


def taken_up(bed: Bed, model: Path) -> dict[str, Any]:
    """A run of 20 steps that is killed after the 14th and taken up, beside one that is not, and one more of that: largest
    differences of weights. Kernels that sum in no fixed order make two whole runs differ; then a tenfold of that is allowed.
    """
    run: dict[str, Any] = dict(steps=20, device=bed.device, save_every=5, **BATCH)
    folders = [bed.work / name for name in ("whole", "again", "killed")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    whole, again, killed = folders
    for folder in (whole, again):
        growkit.pretrain(model, bed.data, folder, **run)
    words = [str(word) for word in (model, bed.data, killed, bed.device)]
    process = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True)
    if process.returncode != -9:
        raise RuntimeError(f"the run that should be killed ended with {process.returncode}: {process.stderr[-300:]}")
    taken = [path.name for path in (killed / "checkpoints").iterdir()]
    growkit.pretrain(model, bed.data, killed, resume="auto", **run)
    weights = [load_file(folder / "final" / "model.safetensors") for folder in folders]
    apart = [max(float((ws[name] - weights[0][name]).abs().max()) for name in weights[0]) for ws in weights[1:]]
    return {"ok": apart[1] <= 10 * apart[0], "from": sorted(taken), "two_whole_runs": apart[0], "taken_up": apart[1]}


def kinds(bed: Bed) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every kind of run: the model that it begins with, and its options."""
    vocabulary = 600 if bed.small else 16384
    model = bed.model("llama", llama(128, 256, 4, LENGTH, vocabulary, kv=1))
    teacher = bed.model("teacher", llama(64, 128, 2, LENGTH, vocabulary), seed=1)
    masked = bed.model("bert", bert(128, 4, LENGTH, vocabulary))
    store, sparse, tokens = bed.work / "store", bed.work / "sparse", bed.work / "few.bin"
    if not store.exists():
        tokens.write_bytes((bed.data / "train.bin").read_bytes()[: 2 * 16384])
        growkit.teach(teacher, tokens, store, seq_len=LENGTH, device=bed.device)
        growkit.upcycle(model, sparse, experts=4, top_k=2)
    taught = dict(teacher_steps=6, teacher_weight=0.5, teacher_until="steps")
    return {
        "plain": (model, {}),
        "a masked model": (masked, {}),
        "prefixes of a first stage": (model, dict(schedule="two-stage", sub_layers=1, sub_steps=6)),
        "growth in mid-run": (model, dict(schedule="late", to_layers=8, jump_at=0.5, decay="wsd")),
        "a live teacher": (model, dict(teacher=teacher, **taught)),
        "a stored teacher": (model, dict(teacher=store, data=tokens, **taught)),
        "a mixture": (sparse, {}),
        "recomputed activations": (model, dict(grad_checkpointing=True)),
        "Muon": (model, dict(optimizer="muon")),
        "a LoRA": (model, dict(train="lora:4")),
    }


def runs(bed: Bed, model: Path, options: dict[str, Any], ways: dict[str, bool]) -> dict[str, Any]:
    """The losses of 8 steps in each way, compiled or not, and on the CPU: largest differences from the CPU's."""
    there = losses(bed, model, 8, "cpu", compile=False, **options)
    apart = {}
    for name, compiled in ways.items():
        here = losses(bed, model, 8, compile=compiled, **options)
        apart[name] = max(abs(a - b) for a, b in zip(here, there))
    return {"ok": max(apart.values()) < 1e-3, **apart}
