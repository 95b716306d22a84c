"""What merging keeps: a small model of books, fine-tuned on C++ documentation and on Python source, merged.

    python examples/benchmarks/merge.py --books DIR --docs DIR --work DIR    # DIR: text or JSON lines

Everything is trained here, from nothing: a base on the books, then from it one model on the documentation and one on
the standard library of the interpreter that runs this. The table has the loss of each on held-out documents of all
three domains, in nats per token, and of their merges; every merge is of both members with weight 1 (average and TIES
take means of their own), scale 1 and seed 0.
"""

import argparse
import json
import shutil
import sysconfig
from pathlib import Path

import growkit

SHAPE = dict(hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
VOCABULARY, LENGTH = 2048, 128
MERGES = {
    "average": dict(method="average"),
    "task arithmetic": dict(method="task-arithmetic"),
    "TIES": dict(method="ties"),
    "DARE p = 0.5": dict(method="dare", drop=0.5),
    "DARE p = 0.9": dict(method="dare", drop=0.9),
    "DARE p = 0.99": dict(method="dare", drop=0.99),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a folder to make")
    parser.add_argument("--steps", type=int, default=400, help="of the base")
    parser.add_argument("--tune-steps", type=int, default=150, help="of each member")
    parser.add_argument("--tune-lr", type=float, default=1e-4, help="peak learning rate of fine-tuning")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True)
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    (work / "python").mkdir()
    for path in library:
        shutil.copy(path, work / "python" / f"{path.stem}.txt")
    domains = {"books": arguments.books, "docs": arguments.docs, "python": work / "python"}
    everything = [str(path) for path in domains.values()]
    # one tokenizer of all three domains, so that no member needs another
    growkit.tokenize(everything, work / "all", train_tokenizer=VOCABULARY, val_fraction=0.05)
    for name, path in domains.items():
        growkit.tokenize([str(path)], work / f"data-{name}", tokenizer=str(work / "all"), val_fraction=0.05)
    start = work / "start"
    shutil.copytree(work / "all" / "tokenizer", start)
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCABULARY, hidden_act="silu")
    config |= dict(
        max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0
    )
    (start / "config.json").write_text(json.dumps(config | SHAPE))
    growkit.init(start, work / "init")
    run = dict(seq_len=LENGTH, batch_size=16, warmup=20, eval_every=10**6, save_every=10**6)
    growkit.pretrain(work / "init", work / "data-books", work / "run", steps=arguments.steps, lr=1e-3, **run)
    base = work / "run" / "final"
    models = {"base": base}
    for name in ("docs", "python"):
        tuned = work / f"tuned-{name}"
        rate = arguments.tune_lr
        growkit.pretrain(base, work / f"data-{name}", tuned, steps=arguments.tune_steps, lr=rate, **run)
        models[f"fine-tuned on {name}"] = tuned / "final"
        report = growkit.delta(base, tuned / "final").report
        print(f"{name}: 99.9 % of deltas below {report.q999:.2e}; safe to drop: {report.safe_drop:g}", flush=True)
    members = [models["fine-tuned on docs"], models["fine-tuned on python"]]
    for name, request in MERGES.items():
        out = work / name.replace(" ", "-")
        models[name] = growkit.merge(members, out, base=base, **request).folder
    print(f"\n| | {' | '.join(domains)} | mean |\n|---{'|---' * (len(domains) + 1)}|")
    for name, model in models.items():
        losses = [
            growkit.evaluate(model, work / f"data-{domain}", context=LENGTH, limit=50_000).loss for domain in domains
        ]
        print(
            f"| {name} | {' | '.join(f'{loss:.4f}' for loss in losses)} | {sum(losses) / len(losses):.4f} |", flush=True
        )


if __name__ == "__main__":
    main()
