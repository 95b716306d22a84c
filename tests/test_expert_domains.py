"""What experts tell of domains, of routers made by hand: all, half of it, nothing; by eval and in a run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from refusing import run
from tiny_runs import tokenizer

import growkit
from growkit.data.domains import NOWHERE
from growkit.data.tokens import META, TokenWriter
from growkit.models.expert_domains import counted, expert_domains, information, most

LOG2 = math.log(2)


def test_information_of_counts():
    eye = torch.eye(3).double() * 40
    assert information(eye) == pytest.approx(math.log(3)) == most(eye)
    alike = torch.tensor([[30.0, 10.0], [60.0, 20.0]]).double()
    assert information(alike) == 0.0 and most(alike) == pytest.approx(math.log(3) - 2 / 3 * LOG2)
    assert information(torch.zeros(2, 4).double()) == 0.0
    counts = torch.tensor([[9000.0, 1000], [2000, 8000]]).double()  # many, so that the correction is small
    joint = (counts / counts.sum()).numpy()
    plain = (joint * np.log(joint / joint.sum(1, keepdims=True) / joint.sum(0))).sum()
    assert information(counts) == pytest.approx(plain - 1 / (2 * 20000), rel=1e-12)
    said = expert_domains([1, 3], torch.stack([counts, counts * 0 + 1]))
    assert said == {"layers": [1, 3], "nats": [information(counts), 0.0], "most": pytest.approx(LOG2)}


def test_few_counts_of_a_router_that_ignores_domains_tell_nearly_nothing():
    """Uncorrected they would tell (D - 1)(E - 1) / 2n = 0.0175 nats."""
    draws = np.random.default_rng(0)
    told = [information(torch.from_numpy(draws.multinomial(600, np.full(32, 1 / 32))).view(4, 8)) for _ in range(200)]
    assert np.mean(told) < 0.004


def test_pairs_are_counted_and_what_is_nowhere_is_not():
    taken = [torch.tensor([[0, 2], [1, 2], [3, 0]])]
    counts = counted(taken, torch.tensor([1, NOWHERE, 0], dtype=torch.uint8), 2, 4)
    assert counts.tolist() == [[[1, 0, 0, 1], [1, 0, 1, 0]]]


def by_hand(folder: Path) -> None:
    """A Mixtral whose layers add nothing, so that each router reads tokens themselves, of one domain if above 29. The
    first tells domains apart, the second asks for the same two experts always, of the third one choice does both."""
    model = tiny.make("mixtral", dtype=torch.float32)
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj")):
            weight.zero_()
        if name.endswith("norm.weight"):
            weight.fill_(1.0)
    routers = [weight for name, weight in weights.items() if name.endswith("mlp.gate.weight")]
    embedding = weights["model.embed_tokens.weight"].zero_()
    embedding[:, 0] = torch.where(torch.arange(61) < 30, 1.0, -1.0)
    embedding[:, 1] = 1.0
    side, same = torch.eye(24)[:2]
    for router, rows in zip(
        routers, ((side, side, -side, -side), (4 * same, 3 * same, same, -same), (9 * same, side, -side, -9 * same))
    ):
        router.copy_(torch.stack(rows))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def talks(folder: Path, chat: bool) -> Path:
    """Documents, or conversations, of two domains, of tokens of its own each; as many tokens of both."""
    folder.mkdir()
    splits, draws = {}, np.random.default_rng(0)
    for split in ("train", "val"):
        writer = TokenWriter(folder, split, np.dtype("<u2"), ("a", "b"), chat=chat)
        for number in range(40):
            ids = (draws.integers(5, 30, 12) + 25 * (number % 2)).astype("<u2")
            learned = (np.arange(12) > 4).astype(np.uint8).tobytes() if chat else None
            if chat:
                writer.add_stored(ids.tobytes(), 0, number % 2, learned)
            else:
                writer.add(ids, 12, number % 2)
        splits[split] = writer.close()
    said = {"format": 1, "growkit": "0", "dtype": "uint16", "vocab_size": 61, "domains": ["a", "b"], "splits": splits}
    (folder / META).write_text(json.dumps(said | ({"chat": {"template": "0" * 64}} if chat else {})))
    return folder


@pytest.mark.parametrize("chat", [False, True])
def test_routers_made_by_hand(tmp_path, monkeypatch, chat):
    """The same by eval and by validation in a run."""
    monkeypatch.chdir(tmp_path)
    by_hand(Path("hand"))
    talks(Path("data"), chat)
    said = growkit.evaluate("hand", "data", context=16).expert_domains
    assert said["layers"] == [0, 1, 2] and said["most"] == pytest.approx(LOG2, abs=1e-4)
    assert said["nats"] == pytest.approx([LOG2, 0.0, LOG2 / 2], abs=2e-3) and said["nats"][1] == 0.0
    shown = run("eval", "hand", "--data", "data", "--context", "16").stdout.split()
    assert shown[shown.index("experts") + 1 :][:6] == ["tell", "of", "the", "domain,", "by", "layer,"]
    call = growkit.tune if chat else growkit.pretrain
    usual = dict(seq_len=16, batch_size=4, steps=1, lr=1e-30, eval_tokens=10_000, eval_every=1)
    call("hand", "data", "run", **usual)
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    vals = [line["expert_domains"] for line in lines if line["kind"] == "val"]
    assert len(vals) == 2 and all(val["nats"] == pytest.approx(said["nats"], abs=2e-3) for val in vals)
