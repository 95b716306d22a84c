"""What a model goes on to say: a prompt, through its chat template where it has one, answered token by token. Knows
stock transformers' generation; ignorant of who reads it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.source import CONFIG, open_checkpoint
from growkit.checkpoint.token_ids import beyond_rows
from growkit.data.encode import unencodable
from growkit.data.tokenizer import stock_tokenizer, tokenizer_folder
from growkit.errors import CheckpointError, RequestError, reason_of
from growkit.families import family_named, vocabulary_size
from growkit.models.adapters import Adapter
from growkit.models.devices import device_named
from growkit.models.running import check_complete, load_model, loadable, objective
from growkit.models.stock import computing, generation_settings
from growkit.operators.seeds import stable_seed

Say = Callable[[str], None]  # called with each stretch of text as soon as it is settled
DONE, FULL = "stop", "length"


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What a model said. ended: "stop" at a token that ends a text, "length" after as many tokens as were allowed."""

    checkpoint: str
    text: str
    ended: str
    prompt_tokens: int
    tokens: int
    templated: bool  # whether the prompt went through the chat template
    device: str
    opened: tuple[str, ...] | None = None  # of a bundle of skills: which the prompt opened

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data; opened for a bundle of skills."""
        return {key: value for key, value in asdict(self).items() if key != "opened" or value is not None}


def generate(
    checkpoint: str | Path,
    prompt: str,
    *,
    system: str | None = None,
    adapter: Adapter | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    raw: bool = False,
    device: str = "auto",
    say: Say = lambda _: None,
) -> Generated:
    """The continuation of a prompt, greedy at temperature 0, else drawn; as growkit.generate says.

    Raises CheckpointError for what cannot speak, RequestError for what cannot be asked of it.
    """
    where = device_named(device)
    source = open_checkpoint(checkpoint)
    source.close()
    if adapter is not None:
        adapter.check(source)
    with loadable(source) as folder:
        config = read_model_config(folder / CONFIG)
        answers = _answers(config, source.label)
        tokenizer = _tokenizer(source.folder, source.label)
        ids, templated = _prompt_ids(tokenizer, prompt, system, raw, source.label)
        _check_ids(ids, tokenizer, vocabulary_size(config), source.label)
        room = _room(config, len(ids), max_tokens, answers, source.label)
        model, keys = load_model(config, folder, torch.float32 if where.type == "cpu" else torch.bfloat16)
        settings = generation_settings(folder)
    check_complete(keys, source.label, "it has nothing to say")
    if adapter is not None:
        model = adapter.put_on(model)
    ends = _ends(settings, tokenizer)
    told = 1 if answers else len(ids)  # tokens that stand before the new ones: a decoder begins with one of its own
    stream = _Stream(tokenizer, told, say)
    drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
    settings.update(
        max_new_tokens=room, max_length=None, min_length=0, num_beams=1, early_stopping=False, return_dict_in_generate=False,
        eos_token_id=ends or None, pad_token_id=(ends or [0])[0], **{"do_sample": False, **drawn},
    )  # fmt: skip
    if not temperature:
        settings.update(temperature=None, top_p=None, top_k=None)
    inputs = torch.tensor([ids], device=where)
    with torch.random.fork_rng(), torch.no_grad(), computing(type(model).__name__):
        torch.manual_seed(stable_seed(seed, "generate"))
        made = model.to(where).generate(
            inputs, attention_mask=torch.ones_like(inputs), generation_config=settings, streamer=stream
        )
    new = made[0, told:].tolist()
    stopped = bool(new) and new[-1] in ends
    opened = None if adapter is None else adapter.opened(model)
    return Generated(
        checkpoint=source.label,
        text=stream.text,
        ended=DONE if stopped else FULL,
        prompt_tokens=len(ids),
        tokens=len(new),
        templated=templated,
        device=str(where),
        opened=None if opened is None else opened[0],
    )


class _Stream:
    """What generate() puts tokens into; what they say so far is handed on as soon as later tokens cannot change it."""

    def __init__(self, tokenizer: Any, prompt: int, say: Say):
        self.tokenizer, self.left, self.say = tokenizer, prompt, say
        self.ids: list[int] = []
        self.text = ""

    def put(self, value: torch.Tensor) -> None:
        """The prompt first, then one token at a time."""
        ids = value.flatten().tolist()
        self.ids += ids[self.left :]
        self.left = max(0, self.left - len(ids))
        text = self._decoded()
        if not text.endswith("�"):  # in the middle of a character of several bytes
            self._hand_on(text)

    def end(self) -> None:
        """No more tokens."""
        self._hand_on(self._decoded())

    def _decoded(self) -> str:
        return self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _hand_on(self, text: str) -> None:
        new = text[len(self.text) :]
        self.text = text
        if new:
            self.say(new)


def _tokenizer(folder: Path | None, label: str) -> Any:
    place = None if folder is None else tokenizer_folder(folder)
    if place is None:
        raise CheckpointError(f"{label!r} has no tokenizer to read the prompt with; put its files beside the weights")
    try:
        return stock_tokenizer(place)
    except Exception as error:  # transformers raises many kinds; each means that this tokenizer does not load
        raise CheckpointError(f"the tokenizer of {label!r} does not load: {reason_of(error)}") from None


def _prompt_ids(tokenizer: Any, prompt: str, system: str | None, raw: bool, label: str) -> tuple[list[int], bool]:
    """(token ids of a prompt, whether the chat template made them)."""
    templated = bool(tokenizer.chat_template) and not raw
    if system is not None and not templated:
        why = "--raw leaves the template out" if raw else f"{label!r} has no chat template"
        raise RequestError(f"--system is said through the chat template, and {why}; write it into the prompt")
    try:
        if not templated:
            return list(tokenizer(prompt, verbose=False)["input_ids"]), False
        turns = [{"role": "user", "content": prompt}]
        turns = turns if system is None else [{"role": "system", "content": system}, *turns]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja and the tokenizers library raise many kinds
        if templated:
            raise RequestError(
                f"the chat template of {label!r} refuses the prompt ({reason_of(error)}); --raw leaves it out"
            ) from None
        raise unencodable(error) from None
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]), True


def _check_ids(ids: list[int], tokenizer: Any, rows: int, label: str) -> None:
    if not ids:
        raise RequestError("the prompt makes no tokens; give some text")
    if max(ids) >= rows:
        token = tokenizer.convert_ids_to_tokens(max(ids))
        raise CheckpointError(beyond_rows("the prompt holds", max(ids), token, label, rows))


def _answers(config: dict[str, Any], label: str) -> bool:
    """Whether a model's decoder answers what its encoder reads; else it goes on with it. Raises CheckpointError for one
    that does neither.
    """
    family, name = family_named(config.get("model_type")), str((config.get("architectures") or ["no class"])[0])
    if family.frames:
        raise CheckpointError(f"{label!r} is a {name}, which reads sounds; growkit generate has a text to read")
    if family.stacks and family.has_language_head(name):
        return True
    if not objective(config, label):
        raise CheckpointError(f"{label!r} fills in masked tokens; it cannot go on with a text")
    return False


def _room(config: dict[str, Any], prompt: int, asked: int, answers: bool, label: str) -> int:
    """How many tokens may be said. answers: in a text of its own, behind one token that begins it."""
    longest = family_named(config.get("model_type")).longest(config)
    if longest is not None and prompt >= longest:
        raise RequestError(f"the prompt has {prompt} tokens, and {label!r} only {longest} positions; shorten it")
    return asked if longest is None else min(asked, longest - (1 if answers else prompt))


def _ends(settings: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text: those of the settings for generating, else the tokenizer's."""
    stated = settings.eos_token_id if settings.eos_token_id is not None else tokenizer.eos_token_id
    return [] if stated is None else list(stated) if isinstance(stated, (list, tuple)) else [stated]
