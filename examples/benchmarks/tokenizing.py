"""How fast text becomes tokens on one core: growkit's encoder beside the tokenizers library's own batches.

    python examples/benchmarks/tokenizing.py --corpus FOLDER      # a folder of .txt files

A byte-level BPE of 4096 entries is trained on the first files; both then encode the same documents in this process, and
the figures are bytes of text per second of processor time. The tokens must be the same.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # before the library is imported

import numpy as np
from tokenizers import Tokenizer

import growkit
from growkit.data import encode, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder of .txt files")
    parser.add_argument("--files", type=int, default=8, help="how many of them to read")
    arguments = parser.parse_args()
    files = sorted(arguments.corpus.glob("*.txt"))[: arguments.files]
    with tempfile.TemporaryDirectory() as name:
        trained = Path(name) / "trained"
        growkit.tokenize(files[:4], trained, train_tokenizer=4096)
        content = (trained / "tokenizer" / "tokenizer.json").read_text("utf-8")
    documents = list(text.documents(files))
    size = sum(len(document.encode()) for document in documents)
    own, library = encode.Encoder(encode.Encoding(content, None, 2)), Tokenizer.from_str(content)
    start = time.process_time()
    ours = [own([document])[0] for document in documents]
    middle = time.process_time()
    theirs = library.encode_batch_fast(documents, add_special_tokens=False)
    stop = time.process_time()
    same = all(np.frombuffer(a, "<u2").tolist() == b.ids for a, b in zip(ours, theirs))
    print(f"{size / 1e6:.1f} MB: growkit {size / 1e6 / (middle - start):.1f} MB/s, encode_batch_fast", end=" ")
    print(f"{size / 1e6 / (stop - middle):.1f} MB/s of one core; {'the same' if same else 'OTHER'} tokens")


if __name__ == "__main__":
    main()
