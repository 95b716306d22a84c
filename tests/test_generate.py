"""What a model goes on to say is what stock transformers says, through the same template, word by word."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from refusing import refused, run
from texts import TOKENIZERS, wrap

import growkit
from growkit.visible import visible
from tests.tiny import make

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
PROMPT, SAID = "Was she there?", 12


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    shape = dict(vocab_size=512, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    for name, template in (("base", None), ("chat", TEMPLATE)):
        model = make("llama", dtype=torch.float32, seed=3, max_position_embeddings=64, **shape)
        model.save_pretrained(folder / name)
        tokenizer = wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>")
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder / name)
    make("bert", dtype=torch.float32).save_pretrained(folder / "masked")
    return folder


@pytest.fixture(autouse=True)
def here(models, monkeypatch):
    monkeypatch.chdir(models)


def stock(name, ids, **drawn):
    model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    return model.generate(torch.tensor([ids]), max_new_tokens=SAID, eos_token_id=0, pad_token_id=0, **drawn)[
        0, len(ids) :
    ]


def test_a_decoder_answers_what_its_encoder_read(tmp_path):
    """Behind a token of its own, which is none of the answer; it takes no room from the prompt."""
    model = make("bart", dtype=torch.float32, seed=3, vocab_size=512, max_position_embeddings=15, pad_token_id=1)
    model.generation_config.update(num_beams=4, early_stopping=True, forced_eos_token_id=None, eos_token_id=2)
    model.save_pretrained(tmp_path)
    tokenizer = wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>")
    tokenizer.save_pretrained(tmp_path)
    ids = tokenizer(PROMPT)["input_ids"]
    said = growkit.generate(tmp_path, PROMPT, max_tokens=SAID)
    wanted = model.generate(
        torch.tensor([ids]), max_new_tokens=SAID, num_beams=1, do_sample=False, eos_token_id=2, pad_token_id=2,
        forced_eos_token_id=None,
    )[0, 1:]  # fmt: skip
    assert said.text == tokenizer.decode(wanted, skip_special_tokens=True)
    assert (said.tokens, said.prompt_tokens) == (len(wanted), len(ids)) and len(ids) + SAID > 15
    make("whisper", dtype=torch.float32).save_pretrained(tmp_path / "sounds")
    refused("generate", tmp_path / "sounds", PROMPT, says="reads sounds; growkit generate has a text to read")


@pytest.mark.parametrize("name", ["base", "chat"])
def test_greedy_is_transformers(name):
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": PROMPT}]
    text = (
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) if name == "chat" else PROMPT
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces: list[str] = []
    more = {"system": "be brief"} if name == "chat" else {}
    said = growkit.generate(name, PROMPT, max_tokens=SAID, say=pieces.append, **more)
    wanted = stock(name, ids, do_sample=False)
    assert said.text == tokenizer.decode(wanted, skip_special_tokens=True) == "".join(pieces)
    assert (said.tokens, said.prompt_tokens, said.templated) == (len(wanted), len(ids), name == "chat")
    assert said.ended == ("stop" if wanted[-1] == 0 else "length") and len(pieces) > 1


def test_a_seed_is_an_answer_and_another_is_another():
    drawn = dict(max_tokens=SAID, temperature=2.0, top_p=0.9)
    state = torch.random.get_rng_state()
    one, same, other = (growkit.generate("chat", PROMPT, seed=seed, **drawn).text for seed in (1, 1, 2))
    assert one == same != other and torch.equal(torch.random.get_rng_state(), state)


def test_the_end_of_a_text_ends_it(tmp_path):
    ends = shutil.copytree("base", tmp_path / "ends")
    greedy = growkit.generate("base", PROMPT, max_tokens=SAID)
    ids = transformers.AutoTokenizer.from_pretrained("base")(PROMPT)["input_ids"]
    third = int(stock("base", ids, do_sample=False)[2])
    transformers.GenerationConfig(eos_token_id=[0, third]).save_pretrained(ends)
    said = growkit.generate(ends, PROMPT, max_tokens=SAID)
    assert said.ended == "stop" and said.tokens <= 3 < greedy.tokens


def test_an_adapter_changes_the_answer_as_peft_does(tmp_path):
    peft = pytest.importorskip("peft")
    model = transformers.AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, lora_alpha=64)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = transformers.AutoTokenizer.from_pretrained("base")(PROMPT)["input_ids"]
    wanted = adapted.generate(
        input_ids=torch.tensor([ids]), max_new_tokens=SAID, do_sample=False, eos_token_id=0, pad_token_id=0
    )
    said = growkit.generate("base", PROMPT, max_tokens=SAID, adapter=tmp_path / "adapter")
    assert said.text == transformers.AutoTokenizer.from_pretrained("base").decode(wanted[0, len(ids) :])
    assert said.text != growkit.generate("base", PROMPT, max_tokens=SAID).text
    refused("generate", "chat", PROMPT, "--adapter", "base", says="--adapter 'base' has no adapter_config.json")
    make("gpt2", dtype=torch.float32, vocab_size=512).save_pretrained("other")
    wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>").save_pretrained("other")
    text = run("generate", "other", "a", "--adapter", tmp_path / "adapter").stderr
    assert "PEFT cannot put" in text and len(text.splitlines()) == 1


def test_the_terminal_gets_the_answer_alone(monkeypatch):
    result = run("generate", "chat", PROMPT, "--max-tokens", 5)
    assert result.stdout == visible(growkit.generate("chat", PROMPT, max_tokens=5).text) + "\n"
    assert result.stderr == "note: cut after 5 tokens; --max-tokens allows more\n"


REFUSED = [
    (["generate", "masked", "a"], "fills in masked tokens; it cannot go on with a text"),
    (["generate", "base", "a", "--system", "b"], "--system is said through the chat template, and 'base' has no chat"),
    (["generate", "chat", "a", "--system", "b", "--raw"], "and --raw leaves the template out"),
    (["generate", "base", "a " * 100], "and 'base' only 64 positions; shorten it"),
    (["generate", "base", ""], "the prompt makes no tokens; give some text"),
    (["generate", "base", "a", "--temperature", "-1"], "--temperature"),
    (["generate", "base", "a", "--adapter", "nowhere"], "--adapter 'nowhere' does not exist"),
]


@pytest.mark.parametrize("words, says", REFUSED, ids=[says[:30] for _, says in REFUSED])
def test_refusals(words, says):
    refused(*words, says=says)


def test_a_template_that_refuses_is_a_sentence(tmp_path):
    broken = shutil.copytree("chat", tmp_path / "broken")
    tokenizer = transformers.AutoTokenizer.from_pretrained(broken)
    tokenizer.chat_template = "{{ raise_exception('not today') }}"
    tokenizer.save_pretrained(broken)
    text = run("generate", broken, "a").stderr
    assert "refuses the prompt (not today); --raw leaves it out" in text and Path(broken).exists()
