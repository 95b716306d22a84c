"""One client looks at one folder: run by run.py, in the client's own environment.

    PYTHON probe.py CLIENT FOLDER INPUT.json OUTPUT.npy

INPUT.json holds token ids, a text and whatever else the client needs. Writes what it computes and prints its version.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np


def transformers(folder, given):
    """Logits (batch, tokens, vocab) by stock transformers, whichever generation is installed."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(given["ids"])).logits.numpy(), version("transformers")


def peft(folder, given):
    """Logits of a base with a LoRA on it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(given["base"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        return model(torch.tensor(given["ids"])).logits.numpy(), version("peft")


def ctranslate2(folder, given):
    """Logits after conversion."""
    import ctranslate2 as ct2
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory() as out:
        TransformersConverter(folder).convert(out, force=True)
        generator = ct2.Generator(out, intra_threads=1)
        logits = generator.forward_batch(given["ids"])
        return np.array(logits), version("ctranslate2")


def litgpt(folder, given):
    """Logits of litgpt's model with weights it converted."""
    import torch
    from litgpt import GPT, Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from safetensors.torch import load_file

    said = json.loads((Path(folder) / "config.json").read_text())
    hidden, heads = said["hidden_size"], said["num_attention_heads"]
    config = Config(
        block_size=said["max_position_embeddings"], vocab_size=said["vocab_size"], padded_vocab_size=said["vocab_size"],
        n_layer=said["num_hidden_layers"], n_head=heads, n_embd=hidden, n_query_groups=said["num_key_value_heads"],
        head_size=said.get("head_dim") or hidden // heads, rotary_percentage=1.0, parallel_residual=False, bias=False,
        norm_class_name="RMSNorm", norm_eps=said["rms_norm_eps"], mlp_class_name="LLaMAMLP",
        intermediate_size=said["intermediate_size"],
        rope_base=said.get("rope_theta") or said["rope_parameters"]["rope_theta"],
    )  # fmt: skip
    state, weights = {}, {}
    for path in Path(folder).glob("*.safetensors"):
        weights |= load_file(path)
    copy_weights_hf_llama(config, {}, state, weights)
    model = GPT(config).eval()
    model.load_state_dict(state, strict=True)
    with torch.no_grad():
        return model(torch.tensor(given["ids"])).numpy(), version("litgpt")


def onnx(folder, given):
    """Logits of onnxruntime, after torch.onnx.export."""
    import onnxruntime
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(ids, use_cache=False).logits

    ids = torch.tensor(given["ids"])
    with tempfile.TemporaryDirectory() as out:
        torch.onnx.export(Logits(), (ids,), f"{out}/model.onnx", dynamo=True)
        session = onnxruntime.InferenceSession(f"{out}/model.onnx", providers=["CPUExecutionProvider"])
        logits = session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0]
    return logits, f"{version('onnxruntime')}, torch {version('torch')}"


def lm_eval(folder, given):
    """Log-probability of a text's tokens."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=1)
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(given["text"],), idx=0)
    return np.array(model.loglikelihood_rolling([request])), version("lm_eval")


def sentence_transformers(folder, given):
    """Embeddings of texts."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, device="cpu").encode([given["text"], "hello"]), version("sentence-transformers")


def main() -> None:
    client, folder, given, out = sys.argv[1:]
    values, number = globals()[client](folder, json.loads(Path(given).read_text()))
    np.save(out, np.asarray(values, dtype=np.float32))
    print(f"version: {number}")


if __name__ == "__main__":
    main()
