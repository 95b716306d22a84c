"""A small model's weights in the corner of random ones, a start that growkit has no method for. Knows stock models; ignorant
of cells.
"""

import shutil
from pathlib import Path

import torch
import transformers

from growkit.checkpoint.small_files import read_json

DONE = "done.json"  # beside a model that is whole, with what the study knows of it


def corner_copy(source: Path, blank: Path, out: Path) -> None:
    """DirectCopy of arXiv 2110.07143, which growkit has no method for: the source's weights in the corner of random ones.

    Heads and their slots must lie one after another in both, which they do where head_dim stays.
    """
    (word,) = read_json(blank / "config.json")["architectures"]
    large, small = (getattr(transformers, word).from_pretrained(path, dtype=torch.float32) for path in (blank, source))
    weights = dict(small.named_parameters())
    with torch.no_grad():
        for name, weight in large.named_parameters():
            if name in weights:
                weight[tuple(slice(size) for size in weights[name].shape)] = weights[name]
    partial = out.with_name("corner.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(blank, partial)
    (partial / DONE).unlink()
    large.save_pretrained(partial)
    partial.rename(out)
