"""What a small stock model puts out: whole, and token by token through the cache. Knows how models are called; ignorant
of growth.
"""

import copy
from typing import Any

import torch

from growkit.families import Family, vocabulary_size
from growkit.families.text_part import BESIDE, flattened
from growkit.models.images import inputs_of, random_images

OF_IMAGES = " of images"  # behind the name of what comes of images too
TOKENS, PADDING = 11, 2  # of a sequence, the last of which are padding where a model looks both ways


def whole(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """Every floating-point output by name, (sequences, ...), float64, those of padding left out."""
    config, causal = flattened(model.config.to_dict()), family.causal
    if family.reads_pixels:
        images = {"pixel_values": random_images(config, 2, torch.Generator().manual_seed(0)).double()}
        if type(model).__name__.endswith("MaskedImageModeling"):
            images["bool_masked_pos"] = (
                torch.arange((config["image_size"] // config["patch_size"]) ** 2).expand(2, -1) % 2
            )
        return _numbers(model, images)
    inputs = _texts(model, family)
    seen = TOKENS if causal else TOKENS - PADDING
    kept = _numbers(model, inputs)
    kept = {n: v[:, :seen] if v.dim() > 1 and v.shape[1] == TOKENS else v for n, v in kept.items()}
    if family.beside is not None and not family.pairs:
        of_images = _numbers(copy.deepcopy(model), _with_images(model, family))  # some remember where images stood
        kept |= {f"{name}{OF_IMAGES}": value for name, value in of_images.items()}
    return kept


def _with_images(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """What a text model beside a tower reads of two texts that begin with an image each."""
    beside, ids = family.beside, _texts(model, family)["input_ids"]
    assert beside is not None, "only asked of families with a tower"
    token = family.value(flattened(model.config.to_dict()), f"{BESIDE}.{beside.token}")
    ids[:, 1 : 1 + beside.tokens] = token
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    draws = torch.Generator().manual_seed(1)
    for name, said in beside.inputs.items():
        pixels = isinstance(said, tuple)
        inputs[name] = torch.randn(said, generator=draws, dtype=torch.float64) if pixels else torch.tensor(said)
    return inputs | ({beside.marks: (ids == token).long()} if beside.marks else {})


def _texts(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """Random texts, as a model is called with them."""
    vocabulary = vocabulary_size(flattened(model.config.to_dict()))
    ids = torch.randint(3, vocabulary, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if not family.causal:
        mask[:, -PADDING:] = 0
    if family.stacks:
        ids[:, -PADDING - 1] = model.config.eos_token_id  # where its classifiers look
    inputs = inputs_of(model, ids, mask)
    if not family.causal and getattr(model.config, "type_vocab_size", 0) == 2:
        inputs["token_type_ids"] = ids % 2
    if type(model).__name__.endswith("MultipleChoice"):
        inputs = {name: value[:, None] for name, value in inputs.items()}
    return inputs


def _numbers(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found = model(**inputs)
    return {n: v for n, v in found.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}


def stepwise(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """A language model's logits (sequences, tokens, vocabulary), one token at a time through its cache; and the same
    behind an image, where it reads images too.
    """
    inputs = _texts(model, family)
    word = "decoder_input_ids" if family.stacks else "input_ids"
    ids, told = inputs.pop(word), {}
    if family.stacks:
        with torch.no_grad():
            told = {"encoder_outputs": model.get_encoder()(**inputs), "attention_mask": inputs.get("attention_mask")}
    found = {"logits": _through_cache(model, word, ids, {word: ids[:, :1]}, told)}
    if family.beside is not None:
        inputs, first = _with_images(model, family), 2 + family.beside.tokens
        ids = inputs["input_ids"]
        inputs |= {name: value[:, :first] for name, value in inputs.items() if value.shape == ids.shape}
        found[f"logits{OF_IMAGES}"] = _through_cache(copy.deepcopy(model), word, ids, inputs, {})
    return found


def _through_cache(
    model: Any, word: str, ids: torch.Tensor, first: dict[str, Any], told: dict[str, Any]
) -> torch.Tensor:
    """Logits of texts whose first tokens, at least, are among the first inputs. told: what is said each time."""
    with torch.no_grad():
        output = model(**told, **first, use_cache=True)
        steps = [output.logits]
        for place in range(first[word].shape[1], TOKENS):
            one, cache = {word: ids[:, place : place + 1]}, output.past_key_values
            output = model(**told, **one, past_key_values=cache, use_cache=True)
            steps.append(output.logits)
    return torch.cat(steps, dim=1)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest value of ours."""
    return float((ours - theirs).abs().max() / ours.abs().max())
