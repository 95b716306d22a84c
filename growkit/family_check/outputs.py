"""What a small stock model puts out: whole, and token by token through the cache. Knows how models are called; ignorant
of growth.
"""

import copy
from typing import Any

import torch

from growkit.families import Family, vocabulary_size
from growkit.families.text_part import BESIDE, flattened
from growkit.models.images import random_images

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
    vocabulary = vocabulary_size(config)
    ids = torch.randint(3, vocabulary, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if not causal:
        mask[:, -PADDING:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if not causal and getattr(model.config, "type_vocab_size", 0) == 2:
        inputs["token_type_ids"] = ids % 2
    if getattr(model.config, "is_encoder_decoder", False):
        ids[:, -PADDING - 1] = model.config.eos_token_id  # where its classifiers look
        inputs["decoder_input_ids"] = ids.flip(1)
    if type(model).__name__.endswith("MultipleChoice"):
        inputs = {name: value[:, None] for name, value in inputs.items()}
    seen = TOKENS if causal else TOKENS - PADDING
    kept = _numbers(model, inputs)
    kept = {n: v[:, :seen] if v.dim() > 1 and v.shape[1] == TOKENS else v for n, v in kept.items()}
    if family.beside is not None:
        seeing = copy.deepcopy(model)  # some remember where images stood
        kept |= {
            f"{name}{OF_IMAGES}": value for name, value in _numbers(seeing, _with_images(family, config, ids)).items()
        }
    return kept


def _with_images(family: Family, config: dict[str, Any], ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a text model beside a tower reads of two texts that begin with an image each."""
    beside = family.beside
    assert beside is not None, "only asked of families with a tower"
    ids, token = ids.clone(), family.value(config, f"{BESIDE}.{beside.token}")
    ids[:, 1 : 1 + beside.tokens] = token
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    draws = torch.Generator().manual_seed(1)
    for name, said in beside.inputs.items():
        pixels = isinstance(said, tuple)
        inputs[name] = torch.randn(said, generator=draws, dtype=torch.float64) if pixels else torch.tensor(said)
    return inputs | ({beside.marks: (ids == token).long()} if beside.marks else {})


def _numbers(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found = model(**inputs)
    return {n: v for n, v in found.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}


def stepwise(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """A language model's logits (sequences, tokens, vocabulary), one token at a time through its cache; and the same
    behind an image, where it reads images too.
    """
    config = flattened(model.config.to_dict())
    ids = torch.randint(3, vocabulary_size(config), (2, TOKENS), generator=torch.Generator().manual_seed(0))
    found = {"logits": _through_cache(model, ids, {"input_ids": ids[:, :1]})}
    if family.beside is not None:
        inputs, first = _with_images(family, config, ids), 2 + family.beside.tokens
        ids = inputs["input_ids"]
        of_texts = {name: value[:, :first] for name, value in inputs.items() if value.shape == ids.shape}
        found[f"logits{OF_IMAGES}"] = _through_cache(copy.deepcopy(model), ids, {**inputs, **of_texts})
    return found


def _through_cache(model: Any, ids: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of texts whose first tokens, at least, are among the inputs."""
    with torch.no_grad():
        output = model(**inputs, use_cache=True)
        steps = [output.logits]
        for place in range(inputs["input_ids"].shape[1], ids.shape[1]):
            output = model(input_ids=ids[:, place : place + 1], past_key_values=output.past_key_values, use_cache=True)
            steps.append(output.logits)
    return torch.cat(steps, dim=1)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest value of ours."""
    return float((ours - theirs).abs().max() / ours.abs().max())
