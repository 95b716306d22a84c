"""What a gate is made of: texts out of datasets, states of the base, their mean and spread, and the file that holds them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import growkit
from growkit.data.tokens import open_tokens
from growkit.errors import CheckpointError, RequestError
from growkit.models.live_layers import layers_of
from growkit.skills.gates.gate_texts import LONGEST, PIECE, dataset_texts
from growkit.skills.gates.hidden_states import middle_layer, pooled_states
from growkit.skills.gates.learn_gate import gate_of_texts
from growkit.skills.gates.own_file import has_gate, read_gate, write_gate
from growkit.skills.gates.own_texts import MOST_TEXTS, own_texts


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Datasets of text, of ten documents, and of conversations, of six."""
    from texts import TOKENIZERS, wrap

    folder = tmp_path_factory.mktemp("gate_texts")
    words = wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>")
    words.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    words.save_pretrained(folder / "words")
    text = "".join(
        json.dumps({"text": f"document {n} " + "and so on " * (5 + 60 * (n == 3))}) + "\n" for n in range(10)
    )
    (folder / "text.jsonl").write_text(text)
    chat = "".join(json.dumps({"prompt": f"What is {n}?", "completion": f"It is {n}."}) + "\n" for n in range(6))
    (folder / "chat.jsonl").write_text(chat)
    growkit.tokenize([folder / "text.jsonl"], folder / "text", folder / "words", workers=1)
    growkit.tokenize([folder / "chat.jsonl"], folder / "chat", folder / "words", chat=True)
    return folder


def test_of_a_conversation_the_prompt_counts_and_nothing_of_the_answer(data):
    tokens = open_tokens(data / "chat")
    texts = dataset_texts(tokens, 100)
    assert len(texts.sequences) == texts.documents == 6
    words = json.loads((data / "words" / "tokenizer.json").read_text())
    assert words  # the tokenizer that made them lies there
    starts, marks = tokens.learned.starts, tokens.learned.marks[: len(tokens)]
    for ids, first, last in zip(texts.sequences, starts, starts[1:]):
        own = marks[first:last]
        assert len(ids) == np.flatnonzero(own)[0] and not own[: len(ids)].any()
        assert np.array_equal(ids.numpy(), tokens.ids[first : first + len(ids)])


def test_every_document_gives_a_piece_before_any_gives_two(data):
    tokens = open_tokens(data / "text")
    few, many = dataset_texts(tokens, 10), dataset_texts(tokens, 100)
    assert len(few.sequences) == few.documents == 10 and len({tuple(ids.tolist()) for ids in few.sequences}) == 10
    assert len(many.sequences) > 10 and many.documents == 10
    assert [*map(tuple, many.sequences)][:10] != [] and all(len(ids) <= PIECE for ids in many.sequences)
    for one, other in zip(few.sequences, many.sequences):
        assert torch.equal(one, other)
    drawn = dataset_texts(tokens, 10, lengths=[3, 5])
    assert {len(ids) for ids in drawn.sequences} == {3, 5} and drawn.sha256 != few.sha256
    assert dataset_texts(tokens, 10, lengths=[3, 5]).sha256 == drawn.sha256
    assert LONGEST >= PIECE


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral", "bert"])
def test_states_are_those_of_the_base_whoever_else_is_asked(family):
    model = tiny.make(family, dtype=torch.float32)
    ids = [tiny.tokens(1, 1, 9)[0], tiny.tokens(2, 1, 5)[0], tiny.tokens(3, 1, 1)[0]]
    for layer in (1, 2, 3):
        found = pooled_states(model, ids, layer)
        for one, vector in zip(ids, found):
            kept = []
            hook = layers_of(model)[layer - 1].register_forward_hook(
                lambda m, i, output, kept=kept: kept.append(output[0] if isinstance(output, tuple) else output)
            )
            with torch.no_grad():
                model(input_ids=one[None])
            hook.remove()
            states = kept[0][0].double()
            wanted = states[1:].mean(0) if len(one) > 1 else states[0]
            assert torch.equal(vector, wanted.float())
        assert torch.equal(found[1:2], pooled_states(model, ids[1:2], layer))
    assert middle_layer(model) == 2 and len(layers_of(model)) == 3 and not model.training


def test_of_own_texts_every_fourth_is_held_out_and_the_others_make_mean_and_spread():
    draws = torch.Generator().manual_seed(0)
    states = 20 * torch.randn(6, generator=draws) + torch.randn(168, 6, generator=draws)
    gate = own_texts(states, [7] * 168, 2)
    assert torch.equal(gate.held, states[3::4]) and gate.texts == 168 and gate.freedom == 125
    seen = states[torch.arange(168) % 4 < 3].double()
    assert torch.allclose(gate.mean.double(), seen.mean(0), atol=1e-5)
    assert torch.allclose((gate.spread.T @ gate.spread).double(), torch.cov(seen.T), atol=1e-4)
    few = own_texts(states[:5], [7] * 5, 2)
    assert few.spread.shape == (4, 6) and few.held.shape == (1, 6)
    with pytest.raises(RequestError, match="needs 4 of a skill's own texts or more, and there are 3"):
        own_texts(states[:3], [7] * 3, 2)


def test_a_gate_is_written_and_read(data, tmp_path):
    model = tiny.make("llama", dtype=torch.float32, vocab_size=512)
    gate = gate_of_texts(model, dataset_texts(open_tokens(data / "chat"), MOST_TEXTS))
    write_gate(tmp_path, gate)
    again = read_gate(tmp_path)
    assert has_gate(tmp_path) and (again.layer, again.texts) == (2, 6)
    for name in ("mean", "spread", "held", "lengths"):
        assert torch.equal(getattr(again, name), getattr(gate, name))


WRONG = [
    (lambda t: t.pop("held"), {}, "lacks 'held'"),
    (lambda t: t.update(x=torch.ones(1)), {}, "has, beyond what belongs there, 'x'"),
    (lambda t: t.update(spread=torch.ones(2, 3)), {}, r"'spread' as float32 \[2, 3\], not as float32 \[1 to 512, 24\]"),
    (lambda t: t.update(mean=torch.ones(1, 24)), {}, r"'mean' as float32 \[1, 24\], not as float32"),
    (lambda t: t.update(held=torch.full((1, 24), torch.nan)), {}, "holds NaN or Inf"),
    (lambda t: t.update(lengths=torch.zeros(2, dtype=torch.int64)), {}, "a text of no tokens"),
    (
        lambda t: None,
        {"format": 1},
        "should have format as one of 2, not 1; learn the skill again, or name its texts with --own",
    ),
    (lambda t: None, {"layer": 0}, "should have layer as a whole number from 1"),
]


@pytest.mark.parametrize(("change", "content", "says"), WRONG, ids=[wrong[2][:25] for wrong in WRONG])
def test_a_gate_that_is_wrong(tmp_path, change, content, says):
    states = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    write_gate(tmp_path, own_texts(states, [3] * 8, 1))
    path, file = tmp_path / "gate.json", tmp_path / "gate.safetensors"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=says):
        read_gate(tmp_path)
    Path(path).unlink()
    with pytest.raises(CheckpointError, match=r"has no gate.json: it was learned without one; learn the skill again"):
        read_gate(tmp_path)
