"""What two models compute, and how far apart it may be: logits, gradients, sentence embeddings."""

from functools import lru_cache

import pytest
import tiny
import torch

from growkit import RequestError, grow_state_dict
from growkit.growth.grow_plan import grow_plan
from growkit.growth.request import grow_recipe
from growkit.growth.source_headers import Headers

STOCK, ALGEBRA, DIFFERS = 1e-5, 1e-10, 1e-6
NEVER_FLOAT64 = ("xglm",)  # stock code that makes a float32 of float64's least number; in float32 then
PURE_FLOAT64 = {"bert", "roberta", "distilbert", "gpt2", "opt"}  # stock code is float64 throughout


@lru_cache(maxsize=4)
def source(family: str, tied: bool, seed: int, **_):
    with tiny.float32_parts_in_double():
        return tiny.make(family, tie_word_embeddings=tied, seed=seed)


def headers(state: dict, config: dict, label: str = "tiny") -> Headers:
    """What is known of tensors in memory as of a checkpoint's."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    dtypes = {name: tensor.dtype for name, tensor in state.items()}
    return Headers(label=label, shapes=shapes, dtypes=dtypes, config=config)


def grown(family: str, growth: dict, **changes):
    """(the source, what the plan says of the function, the grown model)."""
    model = tiny.make(family, **changes)
    state, config = tiny.stored(model), model.config.to_dict()
    plan = grow_plan([headers(state, config)], grow_recipe(**growth))
    return model, str(plan.exactness), tiny.rebuild(model, *grow_state_dict(model.state_dict(), config, **growth))


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def stepwise(model, ids):
    """Logits token by token through the key-value cache."""
    cache, steps = None, []
    with torch.no_grad():
        for position in range(ids.shape[1]):
            output = model(input_ids=ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    return torch.cat(steps, dim=1)


def check_exact(family: str, growth: dict, **changes) -> None:
    """That the plan says "exact", and that the grown decoder computes the same, whole and through the cache."""
    with tiny.float32_parts_in_double():
        model, exactness, wide = grown(family, growth, **changes)
        ids = tiny.tokens()
        reference = logits(model, ids)
        assert exactness == "exact"
        assert tiny.relative(reference, logits(wide, ids)) <= ALGEBRA
        assert tiny.relative(reference, stepwise(wide, ids)) <= ALGEBRA


def check_refused(family: str, changes: dict, growth: dict, why: str) -> None:
    """That growth is refused for a reason."""
    model = tiny.make(family, **changes)
    with pytest.raises(RequestError, match=why):
        grow_state_dict(model.state_dict(), model.config, **growth)


def loss_of(model, seed: int) -> torch.Tensor:
    ids = tiny.tokens(seed)
    return torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(model) -> dict[str, torch.Tensor]:
    with tiny.float32_parts_in_double():
        loss_of(model, seed=0).backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    return tiny.stored(model, found)


def embed(folder, texts):
    from sentence_transformers import SentenceTransformer

    return torch.from_numpy(SentenceTransformer(str(folder), device="cpu").encode(texts)).double()
