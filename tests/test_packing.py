"""Conversations in rows: each whole and seen by itself, in an order that is a function of (seed, step) alone."""

import json
import math
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from covering import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refused
from texts import TOKENIZERS, wrap

import growkit
from growkit.data.batches import IGNORED
from growkit.data.packed_batches import PackedBatches
from growkit.data.packing import OPEN_ROWS, Mixing, draw_mixed, pack
from growkit.data.tokens import META, TokenWriter, open_tokens
from growkit.errors import RequestError
from growkit.families import FAMILIES
from growkit.training.objective import Predicted, learn, nats, total_loss

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=60)


def talks(folder: Path, lengths, tasks=(), names=(), vocabulary: int = 61, seed: int = 0):
    """A chat dataset of conversations of so many random tokens, about half of which are learned, none of the first
    three."""
    draws = np.random.default_rng(seed)
    writer = TokenWriter(folder, "train", np.dtype("<u2"), names, chat=True)
    for number, length in enumerate(lengths):
        learned = (draws.random(length) < 0.5) & (np.arange(length) > 2)
        ids = draws.integers(3, vocabulary, length).astype("<u2")
        writer.add_stored(ids.tobytes(), 0, tasks[number] if tasks else 0, learned.astype(np.uint8).tobytes())
    meta = {"format": 1, "dtype": "uint16", "chat": {"template": "0" * 64}, "splits": {"train": writer.close()}}
    (folder / META).write_text(json.dumps(meta | ({"domains": list(names)} if names else {})))
    return open_tokens(folder)


def conversations(tokens) -> list[tuple[list[int], list[int]]]:
    """(ids, which are learned) of each."""
    starts = tokens.learned.starts.tolist()
    spans = [slice(first, last) for first, last in pairwise(starts)]
    return [(tokens.ids[span].tolist(), tokens.learned.marks[span].tolist()) for span in spans]


@given(lengths=LENGTHS, room=st.integers(20, 50))
@settings(max_examples=100)
def test_rows_hold_each_once_and_overflow_never(lengths, room):
    starts, places = pack(np.array(lengths), room)
    assert sorted(places) == list(range(len(lengths))) and starts[0] == 0 and starts[-1] == len(lengths)
    full = [sum(lengths[place] for place in places[a:b]) for a, b in pairwise(starts)]
    assert all(0 < length <= room for length in full)
    if len(full) <= OPEN_ROWS:  # no two rows could have been one
        assert len(full) < 2 or min(a + b for n, a in enumerate(full) for b in full[:n]) > room


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).integers(10, 300, 5000)
    starts, _ = pack(lengths, 1024)
    assert lengths.sum() / ((len(starts) - 1) * 1024) > 0.97


@pytest.mark.parametrize("packs", [True, False])
def test_a_batch_says_what_the_conversations_say(tmp_path, packs):
    """Every conversation, cut where it is longer than a row, is there once in an epoch, with its places."""
    tokens = talks(tmp_path, [5, 9, 40, 12, 4, 7, 30, 8, 2, 6], [0, 1] * 5, ["a", "b"])
    batches = PackedBatches(tokens, length=16, size=2, packs=packs)
    expected = Counter()
    for number, (ids, learned) in enumerate(conversations(tokens)):
        labels = [i if own else IGNORED for i, own in zip(ids[1:17], learned[1:17])]
        if any(learned[1:17]):
            expected[tuple(ids[:-1][:16]), tuple(labels), number % 2] += 1
    seen, batch = Counter(), batches.at(range(batches.windows))
    assert (batch.positions is not None) == packs
    file, starts = tokens.ids[:], set(tokens.learned.starts.tolist())
    for row in range(batches.windows):
        places = batch.places[row]
        used = int((places >= 0).sum())
        assert (places[used:] == -1).all() and (batch.labels[row, used:] == IGNORED).all()
        assert batch.inputs[row, :used].tolist() == file[places[:used]].tolist()
        begins = [n for n in range(used) if int(places[n]) in starts] + [used]
        if packs:
            counted = [n - max(b for b in begins if b <= n) for n in range(16)]
            assert batch.positions[row].tolist() == counted
        assert packs or len(begins) == 2
        for first, last in pairwise(begins):
            labels = batch.labels[row, first:last]
            kinds = set(batch.domains[row, first:last][labels != IGNORED].tolist())
            assert len(kinds) == 1
            seen[tuple(batch.inputs[row, first:last].tolist()), tuple(labels.tolist()), kinds.pop()] += 1
    assert seen == expected
    counts, told = batches.counts, [learned for _, learned in conversations(tokens)]
    assert (counts.conversations, counts.rows) == (10, batches.windows)
    assert counts.tokens_cut == 40 - 17 + 30 - 17 and counts.dropped == sum(not any(own[1:17]) for own in told)
    assert counts.answers == sum(_answers(own) for own in told)
    assert counts.answers_cut == counts.answers - sum(_answers(own[:17]) for own in told)
    assert counts.padded == batches.windows * 16 - int((batch.places >= 0).sum())
    share = counts.answers_cut / counts.answers
    assert [*batches.notes("--seq-len 16")] == [
        f"{counts.answers_cut} of {counts.answers} answers begin beyond --seq-len 16 and are cut away, with {counts.dropped}"
        " whole conversations; a larger one keeps more"
    ] * (share > 0.05) and share > 0.05


def _answers(learned: list[int]) -> int:
    return sum(own and not before for own, before in zip(learned, [0, *learned]))


@given(size=st.sampled_from([4, 12]), step=st.integers(0, 40), seed=st.integers(0, 3), mixed=st.booleans())
@settings(max_examples=12)
def test_a_step_is_the_same_for_any_number_of_processes(size, step, seed, mixed):
    with tempfile.TemporaryDirectory() as name:
        tokens = talks(Path(name), range(4, 40), [n % 3 for n in range(36)], ["a", "b", "c"])
        more = dict(length=32, size=size, seed=seed, mixing=Mixing(temperature=3.0 if mixed else 1.0))
        whole = PackedBatches(tokens, **more).rows(step, 0, size)
        for world in (2, 4):
            share = size // world
            parts = [PackedBatches(tokens, **more).rows(step, rank * share, share) for rank in range(world)]
            for side in ("inputs", "labels", "places", "positions", "domains"):
                assert torch.equal(getattr(whole, side), torch.cat([getattr(part, side) for part in parts]))
            assert PackedBatches(tokens, **more).predicted(step) == sum(part.predicted for part in parts)
        pieces = whole.parts(2)
        assert torch.equal(whole.positions, torch.cat([piece.positions for piece in pieces]))
        kept = (whole.domains == 1).any(1)
        assert torch.equal(whole.only(1).positions, whole.positions[kept])


def test_each_conversation_comes_once_in_an_epoch_and_the_order_changes(tmp_path):
    tokens = talks(tmp_path, [12] * 50)
    batches = PackedBatches(tokens, length=24, size=4)
    learned = sum(any(own[1:]) for _, own in conversations(tokens))
    drawn = [place for step in range(40) for row in batches.drawn(step, 0, 4) for place in row.tolist()]
    epochs = [drawn[n * learned : (n + 1) * learned] for n in range(3)]
    assert all(sorted(epoch) == list(range(learned)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    again = PackedBatches(tokens, length=24, size=4)
    late = [row.tolist() for row in again.drawn(30, 0, 4)]  # asked for first
    assert late == [row.tolist() for row in batches.drawn(30, 0, 4)]
    other = PackedBatches(tokens, length=24, size=4, seed=1)
    assert torch.equal(other.at([0, 1]).inputs, batches.at([0, 1]).inputs)
    assert [row.tolist() for row in other.drawn(0, 0, 4)] != [row.tolist() for row in batches.drawn(0, 0, 4)]


SIZES, NAMES = [1000, 100, 10], ["big", "middle", "small"]
TASKS = np.repeat([0, 1, 2], SIZES)


@pytest.mark.parametrize(
    "mixing, weights",
    [
        (Mixing(), [1000, 100, 10]),
        (Mixing(temperature=2), [1000**0.5, 10, 10**0.5]),
        (Mixing(temperature=1e9), [1, 1, 1]),
        (Mixing(weights={"big": 1, "middle": 0, "small": 3}), [1, 0, 3]),
    ],
)
def test_tasks_are_drawn_in_their_shares(mixing, weights):
    """In every epoch to within a draw, and no conversation again before all of its task came."""
    shares = mixing.shares(NAMES, SIZES)
    assert np.allclose(shares, np.array(weights) / sum(weights))
    drawn = [draw_mixed(TASKS, shares, 0, epoch) for epoch in range(4)]
    for epoch in drawn:
        assert np.abs(np.bincount(TASKS[epoch], minlength=3) - 1110 * shares).max() <= 1
    together = np.concatenate(drawn)
    for task in range(3):
        times = np.bincount(together[TASKS[together] == task], minlength=1110)[task == TASKS]
        assert times.max() - times.min() <= 1
    assert (drawn[0] == draw_mixed(TASKS, shares, 0, 0)).all() and not np.array_equal(
        drawn[0], draw_mixed(TASKS, shares, 1, 0)
    )


MIXINGS = [
    (
        Mixing(temperature=2),
        (),
        "tasks are mixed where conversations are tagged with them: growkit tokenize --chat name=PATH",
    ),
    (Mixing(temperature=0), "ab", "the temperature 0 that tasks are mixed at should be more than 0"),
    (Mixing(weights={"a": 1}), "ab", "task 'b' has no weight; give a weight for each of a, b"),
    (Mixing(weights={"a": 1, "b": 1, "c": 1}), "ab", "task 'c' is no task of the data; give a weight for each of a, b"),
    (Mixing(weights={"a": -1, "b": 1}), "ab", "the weight -1 of task 'a' should be a finite number from 0 on"),
    (Mixing(weights={"a": 0, "b": 0}), "ab", "the weights of all tasks are 0; give one more than that"),
    (
        Mixing(weights={"a": 1, "b": 1}),
        "ab",
        "the weight 1 of task 'b' should be 0: none of its conversations can be learned",
    ),
]


@pytest.mark.parametrize("mixing, names, says", MIXINGS)
def test_mixings_that_cannot_be(tmp_path, mixing, names, says):
    lengths, tasks = ([20, 20, 3], [0, 0, 1]) if "none of its" in says else ([20, 20, 20], [0, 0, 1])
    tokens = talks(tmp_path, lengths, tasks if names else [], list(names))
    with pytest.raises(RequestError) as error:
        PackedBatches(tokens, length=16, size=2, mixing=mixing)
    assert says in str(error.value)


def test_answers_that_are_all_beyond_a_row(tmp_path):
    with pytest.raises(RequestError, match="has no answer that begins within the 2 tokens of a row; make rows longer"):
        PackedBatches(talks(tmp_path, [20] * 5), length=2, size=2)


CAUSAL = [family for family in tiny.CONFIGS if family not in tiny.ENCODERS]
DECODERS = {"bert": "BertLMHeadModel", "roberta": "RobertaForCausalLM"}


def apart(model, tokens, length: int) -> float:
    """The loss of every conversation by itself, each in one call of the stock model, summed."""
    total = 0.0
    for ids, learned in conversations(tokens):
        row, own = torch.tensor([ids[: length + 1]]), torch.tensor(learned[1 : length + 1], dtype=torch.bool)
        with torch.no_grad():
            logits = model(input_ids=row[:, :-1], use_cache=False).logits[0]
        total += float(nats(logits[own], row[0, 1:][own])) if own.any() else 0.0
    return total


@pytest.mark.parametrize("family", [*sample(CAUSAL), *DECODERS])
def test_packed_losses_are_those_of_each_alone(tmp_path, family):
    """To 1e-6, where a family packs; where it does not, sharing rows would be wrong, and rows of one are right."""
    tokens = talks(tmp_path, [5, 9, 40, 12, 14, 7, 30, 8])
    model = tiny.make(family, DECODERS.get(family), **({"is_decoder": True} if family in DECODERS else {}))
    reference = apart(model, tokens, 24)

    def loss(packs: bool) -> float:
        batches = PackedBatches(tokens, length=24, size=2, packs=packs)
        with torch.no_grad():
            return float(total_loss(Predicted(model, batches.at(range(batches.windows))))[0])

    packs = FAMILIES[family].packs
    assert abs(loss(packs) - reference) < 1e-6 * reference
    assert packs == (abs(loss(True) - reference) < 1e-4 * reference) and packs == (family not in ("opt", *DECODERS))


def test_packed_gradients_are_those_of_each_alone(tmp_path):
    tokens, gradients = talks(tmp_path, [5, 9, 20, 12, 14, 7]), []
    for packs in (True, False):
        model = tiny.make("llama")
        batches = PackedBatches(tokens, length=24, size=2, packs=packs)
        predicted = Predicted(model, batches.at(range(batches.windows)))
        gradient, _ = learn(predicted, 1.0)
        predicted.hidden.backward(gradient)
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(*gradients))


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_eval_of_conversations(tmp_path, monkeypatch, family):
    """The loss of answers alone, each conversation by itself; of each task too."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    model = tiny.make(family, dtype=torch.float32)
    model.save_pretrained("model")
    tokens = talks(Path("data"), [5, 9, 40, 12, 14, 7, 30, 8], [0, 0, 0, 0, 1, 1, 1, 1], ["a", "b"])
    found = growkit.evaluate("model", "data", split="train", context=24)
    total, count = apart(model, tokens, 24), sum(sum(learned[1:25]) for _, learned in conversations(tokens))
    assert found.loss == pytest.approx(total / count, rel=1e-5) and found.predicted == count
    assert found.bits_per_byte is None and found.perplexity == pytest.approx(math.exp(found.loss))
    batches = PackedBatches(tokens, length=24, size=1)
    weights = np.bincount(batches.at(range(batches.windows)).of.numpy())
    assert np.dot(weights, [found.domains["a"], found.domains["b"]]) / count == pytest.approx(found.loss)
    assert found.notes[1] == "conversations: what the assistant says counts, each conversation by itself"
    assert "begin beyond --context 24 and are cut away" in found.notes[2]
    some = growkit.evaluate("model", "data", split="train", context=24, limit=30)
    assert some.windows == 2 and some.predicted < count
    assert growkit.evaluate("model", "data", split="train").context == 64
    refused(
        "eval",
        "model",
        "--data",
        "data",
        "--split",
        "train",
        "--stride",
        "8",
        says="--stride is for text; of conversations",
    )
    train = ["--seq-len", "8", "--batch-size", "2", "--steps", "1", "--out", "run"]
    refused(
        "pretrain", "model", "--data", "data", *train, says="holds conversations, of which answers alone are learned"
    )


def test_masked_models_have_no_conversations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    tiny.make("bert", dtype=torch.float32).save_pretrained("bert")
    wrap(TOKENIZERS["bert"], mask_token="[MASK]", unk_token="[UNK]").save_pretrained("bert")
    talks(Path("data"), [9, 12])
    refused(
        "eval", "bert", "--data", "data", "--split", "train", says="fills in masked tokens, and conversations are for"
    )
