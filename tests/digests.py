"""Digests of what commands make of small models, as they stand in digests.json: the same on any machine.

A digest is the first 16 hex digits of a file's SHA-256: of weights, config.json and tokens. The weights that are grown
are whole numbers (small_models.py), and only what no processor can round otherwise is here: copies, products, sums in a
fixed order. No training, no singular values, no normal deviates: routers of new mixtures are left out of their digests.

A change that is meant to alter bytes writes the digests anew: python tests/same_bytes.py --renew
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from same_bytes import Case, record
from small_models import CONFIGS, small_model

DIGESTS = Path(__file__).with_name("digests.json")
POST_NORM = ("bert", "roberta", "distilbert")  # at odd widths their fillers are less a mean, whose sum may be rounded
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")  # which cannot be fused
ANY = [
    "widen F --hidden 48", "widen F --hidden 48 --mapping random --seed 3",
    "widen F --hidden 48 --ffn 100 --method aki", "stack F --layers 5 --method interleave",
    "stack F --method identity --every 2 --shard-size 20KB", "stack F F-2 --slices A:1-2,B:2-3",
    "grow F --hidden 48 --layers 5 --depth top --dtype bfloat16",
    "merge F-a F-b:0.5 --base F --method dare",
]  # fmt: skip
MERGED = [f"merge F-a F-b:0.5 --base F --method {method}" for method in ("ties", "dare-ties", "breadcrumbs", "average")]
FUSED = ["fuse F F-2", "fuse F F-2 --mode aki"]
ODD = ["widen F --hidden 36"]
UPCYCLED = ["upcycle F --experts 4", "upcycle F --experts 8 --top-k 4 --granularity 4 --dtype bfloat16"]
TOKENS = [
    "tokenize text.txt lines.jsonl --tokenizer words --workers 1 --val-fraction 0.4 --seed 1",
    "tokenize lines.jsonl --val text.txt --tokenizer words --workers 1",
]
DELTAS = ["delta llama llama-a --drop 0.5 --save skill", "apply llama skill:2 -o out"]


def asked(what: str) -> list[Case]:
    """The cases of a family, or of tokens, deltas or mixtures."""
    if what == "deltas":
        return [Case(what, tuple(DELTAS))]
    if what == "tokens":
        return [Case(line, (f"{line} -o out",)) for line in TOKENS]
    if what == "mixtures":
        lines = [line.replace("F", family) for family in ("mistral", "qwen2", "qwen3") for line in UPCYCLED]
    else:
        lines = [*ANY, *(FUSED if what not in MIXTURES else []), *(ODD if what not in POST_NORM else [])]
        lines += MERGED if what in ("bert", "gpt2", "gemma2", "qwen2_moe") else []
        lines = [line.replace("F", what) for line in lines]
    return [Case(line, (f"{line} -o out" + " --no-verify" * (not line.startswith("merge")),)) for line in lines]


# a family whose tensors are those of another that is here has no digests of its own
LIKE_OTHERS = ("roberta", "mistral", "qwen2", "gemma", "qwen3_moe")
WHAT = (*(family for family in CONFIGS if family not in LIKE_OTHERS), "mixtures", "deltas", "tokens")


def digests(what: str, sources: Path) -> dict[str, Any]:
    """What comes of the cases, from sources that are made here."""
    for family in {"mixtures": ["mistral", "qwen2", "qwen3"], "deltas": ["llama"], "tokens": []}.get(what, [what]):
        small_model(sources / family, family)
        small_model(sources / f"{family}-2", family, seed=1)
        for number, member in enumerate("ab"):
            small_model(sources / f"{family}-{member}", family, seed=2 + number, near=0)
    if what == "tokens":
        _texts(sources)
    found = record(asked(what), sources, "block_sparse_moe.gate.weight|mlp.gate.weight" if what == "mixtures" else "")
    assert found.pop("sources")["unchanged"]
    return {name: _short(case) for name, case in found.items()}


def _short(case: dict[str, Any]) -> dict[str, str]:
    """Digests of the files that are looked at; what was said instead where there are none."""
    for said in case["commands"]:
        if said["exit"]:
            return {"refused": str(said.get("stderr", said.get("exception")))}
    kinds = (".safetensors", "config.json", ".bin", ".npy")
    return {name: digest[:16] for name, digest in case["files"].items() if name.endswith(kinds)}


def _texts(folder: Path) -> None:
    """A text, lines of JSON, and a tokenizer that knows each of their words."""
    folder.mkdir(parents=True)
    words = ["growing", "a", "small", "model", "keeps", "what", "it", "has", "learned", "gives", "room", "for", "more"]
    text = [" ".join(words[(start * step) % len(words)] for step in range(1, 30)) for start in range(1, 8)]
    (folder / "text.txt").write_text("\n\n".join(text))
    (folder / "lines.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in text))
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "[SEP]", *dict.fromkeys(words)])}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": word, **special} for number, word in enumerate(["[UNK]", "[SEP]"])],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (folder / "words").mkdir()
    (folder / "words/tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    (folder / "words/tokenizer_config.json").write_text(json.dumps(settings))


def renew() -> None:
    """Write digests.json anew."""
    with tempfile.TemporaryDirectory() as folder:
        held = {what: digests(what, Path(folder, what)) for what in WHAT}
    DIGESTS.write_text(json.dumps(held, indent=1) + "\n")
