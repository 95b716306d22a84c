"""Small models trained on real text, for the benchmarks beside this file to grow and fuse.

    python examples/benchmarks/small_models.py --work DIR [--corpus FOLDER] [--steps 1000]

Makes, where it is not there yet: DIR/a and DIR/b, two Llama shapes of one tokenizer (byte-level BPE), each trained
from a seed of its own on its own half of the text (alternate pieces of 100,000 characters); and DIR/bert, a BERT
shape, which is post-LayerNorm, as a causal language model of the same size and tokenizer, trained on all of it.
FOLDER holds train/*.txt and val/*.txt; without it the excerpt in the repository is cut into both, which is enough to
see that everything runs.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import tokenizers
import torch
import transformers

EXCERPT = Path(__file__).parents[1] / "text" / "excerpt.txt"
END = 0  # token id
VOCABULARY, LENGTH, BATCH = 2048, 128, 32
SEEDS = {"a": 1, "b": 2, "bert": 3}
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
    max_position_embeddings=256, bos_token_id=END, eos_token_id=END, pad_token_id=None,
)  # fmt: skip

Predict = Callable[[torch.Tensor], torch.Tensor]


def quiet() -> None:
    """One thread, and no progress bars of transformers."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks on small models share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the models; what is there is used again")
    parser.add_argument("--corpus", type=Path, help="folder with train/*.txt and val/*.txt; default the excerpt")
    parser.add_argument("--steps", type=int, default=1000, help="training steps for models that are not there")
    return parser


def pieces(corpus: Path | None) -> tuple[list[str], list[str]]:
    """(training text, validation text), in pieces that alternate between the members."""
    if corpus is None:
        text = EXCERPT.read_text("utf-8")
        cut = [text[i : i + 10_000] for i in range(0, len(text), 10_000)]
        return [piece for i, piece in enumerate(cut) if i % 8 != 4], cut[4::8]
    train, validation = ([p.read_text("utf-8") for p in sorted((corpus / n).glob("*.txt"))] for n in ("train", "val"))
    if not train or not validation:
        raise SystemExit(f"{corpus} needs train/*.txt and val/*.txt")
    whole = "".join(train)
    return [whole[i : i + 100_000] for i in range(0, len(whole), 100_000)], validation


def tokenizer_in(work: Path, corpus: Path | None) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer of all small models, trained on first use."""
    folder = work / "tokenizer"
    if not folder.exists():
        bpe = tokenizers.ByteLevelBPETokenizer()
        bpe.train_from_iterator(pieces(corpus)[0], VOCABULARY, special_tokens=["<end>", "<mask>"], show_progress=False)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=bpe._tokenizer, eos_token="<end>", mask_token="<mask>"
        ).save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def tokens_of(tokenizer: transformers.PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """(tokens,) of the texts, one after the other."""
    return torch.cat([torch.tensor(tokenizer(text, verbose=False)["input_ids"]) for text in texts])


def held_out(work: Path, corpus: Path | None, tokens: int) -> torch.Tensor:
    """(sequences, LENGTH) of validation text, spread over all of it."""
    ids = tokens_of(tokenizer_in(work, corpus), pieces(corpus)[1])
    sequences = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    return sequences[:: max(1, len(sequences) * LENGTH // tokens)][: tokens // LENGTH]


def loss_of(predict: Predict, sequences: torch.Tensor) -> float:
    """Nats per predicted token of whatever gives (sequences, length, vocabulary) scores for tokens."""
    total = 0.0
    for ids in sequences.split(BATCH):
        with torch.no_grad():
            scores = predict(ids)[:, :-1]
        total += torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
    return total / sequences[:, 1:].numel()


def load(folder: Path) -> transformers.PreTrainedModel:
    """A stock model by the class its config names."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder, dtype=torch.float32).eval()


def predictor(model: transformers.PreTrainedModel) -> Predict:
    return lambda ids: model(input_ids=ids).logits


def train(model: transformers.PreTrainedModel, ids: torch.Tensor, steps: int, rate: float, seed: int) -> None:
    """AdamW with warm-up and cosine on pieces of the ids, drawn by the seed."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [dict(params=matrices, weight_decay=0.1), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / warm_up) * (0.55 + 0.45 * math.cos(math.pi * s / steps))
    )
    draw, losses = torch.Generator().manual_seed(seed), []
    model.train()
    start = time.monotonic()
    for step in range(steps):
        places = torch.randint(len(ids) - LENGTH, (BATCH,), generator=draw)
        batch = torch.stack([ids[p : p + LENGTH] for p in places])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            recent, spent = sum(losses[-100:]) / 100, time.monotonic() - start
            print(f"    step {step + 1}, loss {recent:.3f}, {spent:.0f} s", flush=True)
    model.eval()


def small_model(name: str, work: Path, corpus: Path | None, steps: int) -> Path:
    """The folder of a small model ("a", "b" or "bert"), trained first where it is not there."""
    folder = work / name
    if (folder / "config.json").exists():
        return folder
    tokenizer = tokenizer_in(work, corpus)
    text = pieces(corpus)[0]
    torch.manual_seed(SEEDS[name])
    if name == "bert":
        shape = SHAPE | dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, is_decoder=True)
        model, rate = transformers.BertLMHeadModel(transformers.BertConfig(initializer_range=0.05, **shape)), 1e-3
    else:
        text = text[SEEDS[name] - 1 :: 2]
        model, rate = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_key_value_heads=2, **SHAPE)), 3e-3
    print(f"training {folder}", flush=True)
    train(model, tokens_of(tokenizer, text), steps, rate, SEEDS[name])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    arguments = options(__doc__).parse_args()
    quiet()
    sequences = held_out(arguments.work, arguments.corpus, 100_000)
    for name in SEEDS:
        folder = small_model(name, arguments.work, arguments.corpus, arguments.steps)
        loss = loss_of(predictor(load(folder)), sequences)
        print(f"{name}: {loss:.3f} nats per token of held-out text")


if __name__ == "__main__":
    main()
