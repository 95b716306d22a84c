"""The demo: train a small language model for a minute, widen and deepen it, prove that all of them still say the same.

    make demo          # or: python examples/demo.py [--out demo] [--seconds 60]

Needs no network. The model is a Llama shape with grouped heads and a tied head, trained on the embedded excerpt with a
byte-level BPE; the grown copies are stock checkpoints that transformers loads.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers
from rich.console import Console
from tokenizers import ByteLevelBPETokenizer

TEXT = Path(__file__).parent / "text" / "excerpt.txt"
PROMPT = "It is a truth universally acknowledged, that"
console = Console(highlight=False, soft_wrap=True)


def train(folder: Path, seconds: float) -> None:
    """Train a 0.6 M model from scratch for a while and save it with its tokenizer."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(TEXT)], vocab_size=1024, special_tokens=["<|end|>"], show_progress=False)
    tokens = torch.tensor(tokenizer.encode(TEXT.read_text("utf-8")).ids)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1024, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    start, step, loss = time.monotonic(), 0, float("nan")
    with console.status("training") as status:
        while (spent := time.monotonic() - start) < seconds:
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * (1 - 0.9 * spent / seconds)
            places = torch.randint(len(tokens) - 64, (16,))
            batch = torch.stack([tokens[p : p + 64] for p in places])
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            status.update(f"training: step {step}, loss {loss.item():.3f}, {seconds - spent:.0f} s to go")
    parameters = sum(p.numel() for p in model.parameters())
    console.print(f"trained {parameters:,} parameters for {step} steps: loss {loss.item():.3f} nats per token\n")
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, eos_token="<|end|>").save_pretrained(
        folder
    )


def shell(*command: str) -> None:
    """Show a command and run it."""
    console.print(f"[bold cyan]$ growkit {shlex.join(command)}[/]")
    subprocess.run([sys.executable, "-m", "growkit", *command], check=True)
    console.print()


def continuation(folder: Path) -> str:
    """What a checkpoint makes of the prompt, always choosing its likeliest token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    return tokenizer.decode(output[0]).replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to work in; what is there is replaced")
    parser.add_argument("--seconds", type=float, default=60, help="how long to train")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    shutil.rmtree(arguments.out, ignore_errors=True)
    source = arguments.out / "small"
    train(source, arguments.seconds)
    shell("inspect", str(source))
    wide = {"192": "twice as wide", "144": "1.5 times as wide, where plain copies would not be exact"}
    for width in wide:
        target = str(arguments.out / f"small-h{width}")
        shell("widen", str(source), "--hidden", width, "-o", target, "--no-verify")
        shell("verify", str(source), target, "--text", os.path.relpath(TEXT))
    deep, both = arguments.out / "small-h192-l8", arguments.out / "small-h192-l8-at-once"
    shell(
        "stack",
        str(arguments.out / "small-h192"),
        "--layers",
        "8",
        "--method",
        "identity",
        "-o",
        str(deep),
        "--no-verify",
    )
    shell("verify", str(source), str(deep), "--text", os.path.relpath(TEXT))
    shell(
        "grow", str(source), "--hidden", "192", "--layers", "8", "--depth", "identity", "-o", str(both), "--no-verify"
    )
    same = (deep / "model.safetensors").read_bytes() == (both / "model.safetensors").read_bytes()
    console.print(f"widen then stack, and grow at once: {'the same bytes' if same else 'DIFFERENT bytes'}\n")
    console.print("[bold]The same words from all of them:[/]")
    grown = [(what, arguments.out / f"small-h{width}") for width, what in wide.items()]
    for name, folder in [("source", source), *grown, ("twice as wide and twice as deep", deep)]:
        console.print(f"  [dim]{name}:[/] {continuation(folder)}")


if __name__ == "__main__":
    main()
