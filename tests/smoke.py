"""A smoke test for one Python, in a minute and without pytest: every module loads, and the main commands do their work.

    python tests/smoke.py      # of this Python; make smoke PYTHON=python3.13 makes an environment for another

Needs growkit and what it depends on, nothing more. Tests say whether results are right; this says that they come at
all.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

OPTIONAL = {
    "matplotlib",
    "tensorboard",
    "wandb",
    "pyarrow",
}  # of extras; without them a module may fail to load, and no other
STAGES = """
[[stage]]
name = "alone"
steps = 2
train_top = 1

[[stage]]
steps = 3
lr = 0.5
"""
TEXT = "Growing a small model keeps what it has learned, and gives it room for more.\n\n"


def load_everything() -> int:
    """Import every module; returns how many there are."""
    import growkit

    names = [module.name for module in pkgutil.walk_packages(growkit.__path__, "growkit.")]
    for name in names:
        if name != "growkit.__main__":
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name not in OPTIONAL:
                    raise
    return len(names)


def save_llama(folder: Path) -> None:
    """A tiny model, its weights drawn anew so that none is 0."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data = 0.8 + 0.1 * torch.randn_like(parameter) if parameter.dim() == 1 else 0.3 * parameter.sign()
    model.save_pretrained(folder)


def command(*words: str) -> None:
    """A growkit command, which must succeed."""
    print("growkit", *words, flush=True)
    subprocess.run([sys.executable, "-m", "growkit", *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Everything once, in a folder that is gone afterwards."""
    from growkit.training.stages import read_stages

    print(f"Python {sys.version.split()[0]}: {load_everything()} modules load")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        save_llama(Path("small"))
        command("widen", "small", "--hidden", "48", "-o", "wide")
        command("verify", "small", "wide")
        command("stack", "small", "--layers", "6", "-o", "deep")
        Path("text").mkdir()
        for number in range(40):
            Path(f"text/{number}.txt").write_text(TEXT * 1000 + str(number), "utf-8")
        tokenize = ["tokenize", "text", "--val-fraction", "0.2"]
        command(*tokenize, "--train-tokenizer", "300", "-o", "data", "--workers", "2")
        command(*tokenize, "--tokenizer", "data", "-o", "again", "--workers", "1")
        for name in ("train.bin", "train.idx.npy", "val.bin", "val.idx.npy"):
            assert Path("data", name).read_bytes() == Path("again", name).read_bytes(), name
        Path("stages.toml").write_text(STAGES)
        assert [(stage.name, stage.steps) for stage in read_stages("stages.toml")] == [("alone", 2), ("stage 2", 3)]
        os.chdir("/")
    print("all went well")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
