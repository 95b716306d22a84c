"""Recipes carried out by mergekit and by growkit, and the largest difference of their weights.

    pip install mergekit                     # in an environment of its own
    python examples/benchmarks/mergekit_values.py --mergekit ENVIRONMENT/bin/mergekit-yaml

Models are tiny and made on the fly, in float32. Relative differences are to the largest weight of the tensor.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import growkit

LAYERS = 5
TWO = "models:\n- model: a\n  parameters: {weight: 0.7%s}\n- model: b\n  parameters: {weight: 0.4%s}\n"
GRADIENT = (
    "models:\n- model: a\n  parameters: {density: [1, 0.5, 0.2],"
    " weight: [{filter: self_attn, value: [0, 1]}, {value: 0.5}]}\n- model: b\n  parameters: {weight: 0.3, density: 0.5}\n"
)
SLICES = (
    "slices:\n- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n  parameters: {t: 0.2}\n"
    "- sources: [{model: a, layer_range: [2, 5]}, {model: b, layer_range: [2, 5]}]\n"
)
SLERP = "slices:\n- sources: [{model: a, layer_range: [0, 5]}, {model: b, layer_range: [0, 5]}]\n"
STACK = (
    "slices:\n- sources: [{model: a, layer_range: [0, 4]}]\n- sources: [{model: b, layer_range: [1, 4]}]\n"
    "- sources: [{model: a, layer_range: [2, 5]}]\n"
)
DENSE = ", density: 1"
RECIPES = {
    "linear": "merge_method: linear\n" + TWO % ("", ""),
    "linear, not normalised": "merge_method: linear\nparameters: {normalize: false}\n" + TWO % ("", ""),
    "task_arithmetic": "merge_method: task_arithmetic\nbase_model: base\n" + TWO % ("", ""),
    "task_arithmetic, normalised, lambda": "merge_method: task_arithmetic\nbase_model: base\n"
    "parameters: {normalize: true, lambda: [0.5, 1.5]}\n" + TWO % ("", ""),
    "ties": "merge_method: ties\nbase_model: base\n" + TWO % (", density: 0.3", ", density: 0.6"),
    "ties, not normalised": "merge_method: ties\nbase_model: base\nparameters: {normalize: false}\n"
    + TWO % (", density: 0.3", ", density: 0.6"),
    "ties, gradients and filters": "merge_method: ties\nbase_model: base\n" + GRADIENT,
    "dare_linear, nothing dropped": "merge_method: dare_linear\nbase_model: base\n" + TWO % (DENSE, DENSE),
    "dare_ties, nothing dropped": "merge_method: dare_ties\nbase_model: base\n" + TWO % (DENSE, DENSE),
    "dare_linear, half dropped": "merge_method: dare_linear\nbase_model: base\n"
    + TWO % (", density: 0.5", ", density: 0.5"),
    "slerp, gradients and filters": "merge_method: slerp\nbase_model: a\nparameters:\n  t: [{filter: self_attn,"
    " value: [0, 0.5, 0.3, 0.7, 1]}, {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}, {value: 0.5}]\n" + SLERP,
    "slerp, two slices": "merge_method: slerp\nbase_model: b\nparameters: {t: [0.1, 0.9]}\n" + SLICES,
    "passthrough": "merge_method: passthrough\n" + STACK,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, required=True, help="the program mergekit-yaml")
    program = parser.parse_args().mergekit.absolute()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        config = LlamaConfig(
            vocab_size=61, hidden_size=24, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=40, architectures=["LlamaForCausalLM"],
        )  # fmt: skip
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        model.save_pretrained("base")
        for name in "ab":
            tuned = LlamaForCausalLM.from_pretrained("base")
            for parameter in tuned.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
            tuned.save_pretrained(name)
        print("| recipe | largest difference |\n|---|---|")
        for number, (name, text) in enumerate(RECIPES.items()):
            recipe = Path(f"{number}.yml")
            recipe.write_text("dtype: float32\n" + text)
            growkit.merge(recipe=recipe, out=f"ours-{number}")
            done = subprocess.run([program, recipe, f"theirs-{number}"], capture_output=True, text=True)
            theirs = Path(f"theirs-{number}/model.safetensors")
            if not theirs.exists():  # a missing tokenizer ends it after the weights were written
                raise SystemExit(done.stderr)
            print(f"| {name} | {difference(load_file(f'ours-{number}/model.safetensors'), load_file(theirs)):.1e} |")


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest, relative to the largest weight of its tensor."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    return max(float((ours[n] - theirs[n]).abs().max() / theirs[n].abs().max()) for n in ours)


if __name__ == "__main__":
    main()
