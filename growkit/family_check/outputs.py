"""What a small stock model puts out: whole, and token by token through the cache. Knows how models are called; ignorant
of growth.
"""

from typing import Any

import torch

from growkit.families import Family, vocabulary_size
from growkit.models.images import inputs_of, random_images

TOKENS, PADDING = 11, 2  # of a sequence, the last of which are padding where a model looks both ways


def whole(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """Every floating-point output by name, (sequences, ...), float64, those of padding left out."""
    config, causal = model.config.to_dict(), family.causal
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
    return {n: v[:, :seen] if v.dim() > 1 and v.shape[1] == TOKENS else v for n, v in kept.items()}


def _texts(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """Random texts, as a model is called with them."""
    vocabulary = vocabulary_size(model.config.to_dict())
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


def stepwise(model: Any, family: Family) -> torch.Tensor:
    """A language model's logits (sequences, tokens, vocabulary), one token at a time through its cache."""
    inputs, cache, steps = _texts(model, family), None, []
    word = "decoder_input_ids" if family.stacks else "input_ids"
    ids, told = inputs.pop(word), {}
    with torch.no_grad():
        if family.stacks:
            told = {"encoder_outputs": model.get_encoder()(**inputs), "attention_mask": inputs.get("attention_mask")}
        for place in range(TOKENS):
            output = model(**told, **{word: ids[:, place : place + 1]}, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    return torch.cat(steps, dim=1)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest value of ours."""
    return float((ours - theirs).abs().max() / ours.abs().max())
