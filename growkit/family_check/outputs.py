"""What a small stock model puts out: whole, and token by token through the cache. Knows how models are called; ignorant
of growth.
"""

from typing import Any

import torch

TOKENS, PADDING = 11, 2  # of a sequence, the last of which are padding where a model looks both ways


def whole(model: Any, causal: bool, vocabulary: int) -> dict[str, torch.Tensor]:
    """Every floating-point output by name, (sequences, ...), float64, those of padding left out."""
    ids = torch.randint(3, vocabulary, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if not causal:
        mask[:, -PADDING:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if not causal and getattr(model.config, "type_vocab_size", 0) == 2:
        inputs["token_type_ids"] = ids % 2
    if type(model).__name__.endswith("MultipleChoice"):
        inputs = {name: value[:, None] for name, value in inputs.items()}
    with torch.no_grad():
        found = model(**inputs)
    kept = {n: v for n, v in found.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    seen = TOKENS if causal else TOKENS - PADDING
    return {n: v[:, :seen] if v.dim() > 1 and v.shape[1] == TOKENS else v for n, v in kept.items()}


def stepwise(model: Any, vocabulary: int) -> torch.Tensor:
    """A language model's logits (sequences, tokens, vocabulary), one token at a time through its cache."""
    ids = torch.randint(3, vocabulary, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    cache, steps = None, []
    with torch.no_grad():
        for place in range(TOKENS):
            output = model(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    return torch.cat(steps, dim=1)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest value of ours."""
    return float((ours - theirs).abs().max() / ours.abs().max())
