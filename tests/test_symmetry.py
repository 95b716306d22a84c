"""Copies that compute the same must be able to part in training, and parting them must cost nothing.

Splitting what reads two copies unevenly (the `noise` of a growth) leaves the function as it is, to the last bit of the
stored dtype where the growth is a power of two. Equal copies get equal gradients and stay equal; split ones go their
own ways, much faster than under one scalar per unit (LEMON's split, arXiv 2310.07999), which Adam divides out again.
And nothing new is dead: every new entry has a gradient within two steps wherever its source has one.
"""

import pytest
import tiny
import torch

import growkit

torch.set_num_threads(1)  # on tensors this small, threads only wait for one another

VOCABULARY = 61
KEY_BIASES = ("key.bias", "k_proj.bias", "k_lin.bias")  # scores do not depend on them: their gradients are rounding


def grow(model, **growth):
    state, config = growkit.grow_state_dict(model.state_dict(), model.config, **growth)
    return tiny.rebuild(model, state, config)


def is_reader(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor of Llama, BERT, NeoX or Phi reads the axis of its last dimension."""
    return tensor.dim() == 2 and "embed" not in name and "decoder" not in name


@pytest.mark.parametrize("family", ["bert", "gpt_neox", "llama", "olmo2"])
def test_no_split_changes_the_function(family):
    with tiny.float32_parts_in_double(), torch.no_grad():
        model = tiny.make(family)
        expected = model(tiny.tokens()).logits
        for noise in (0.1, 0.3, 0.5, 0.7, 0.9):
            for width in (48, 72):
                assert tiny.relative(expected, grow(model, hidden=width, noise=noise)(tiny.tokens()).logits) < 1e-11


def test_noise_by_width_keeps_its_share_of_the_largest_singular_value():
    """What the split adds, beside the weights: the same at each width, and 0.5 where the width doubles."""
    model = tiny.make("llama", tie_word_embeddings=False)

    def grown(width, noise):
        sizes = dict(hidden=width, heads=4, ffn=40 * width // 24)
        return growkit.grow_state_dict(model.state_dict(), model.config, noise=noise, **sizes)[0]

    def share(width, noise):
        split, equal = grown(width, noise), grown(width, 0)
        names = [name for name in split if is_reader(name, split[name]) and "mlp" in name]
        lengths = [[torch.linalg.matrix_norm(m, 2) for m in (split[n] - equal[n], equal[n])] for n in names]
        return torch.tensor([added / whole for added, whole in lengths]).mean()

    doubled, by_width = grown(48, 0.5), grown(48, "auto")
    assert all(torch.equal(by_width[name], doubled[name]) for name in doubled)
    assert 0.9 < share(192, "auto") / share(48, "auto") < 1.1 and share(192, 0.5) / share(48, 0.5) < 0.6


def stretched(model, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights over many orders of magnitude, into float16's subnormal numbers and down from bfloat16's middle."""
    generator = torch.Generator().manual_seed(0)
    low, high = (-6.5, 2.5) if dtype == torch.float16 else (-30, 30)
    state = {}
    for name, tensor in model.state_dict().items():
        powers = low + (high - low) * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        state[name] = (tensor.double() * 10**powers).to(dtype)
    return state


@pytest.mark.parametrize(
    ("dtype", "noise"), [(torch.bfloat16, 0.1), (torch.bfloat16, 0.9), (torch.float16, 0.5), (torch.float32, 0.9)]
)
def test_stored_halves_add_up_to_the_source(dtype, noise):
    """The larger half is rounded and the smaller is what is left, exactly (Sterbenz): no dtype loses a bit."""
    model = tiny.make("llama", tie_word_embeddings=False)
    state = stretched(model, dtype)
    for times, width in ((2, 48), (4, 96), (3, 72), (5 / 3, 40)):
        growth = dict(hidden=width) if width != 40 else dict(hidden=width, heads=4)
        grown, _ = growkit.grow_state_dict(state, model.config, noise=noise, **growth)
        for name, source in state.items():
            if not is_reader(name, source) or (width == 40 and not name.endswith(("q_proj.weight", "lm_head.weight"))):
                continue
            source, columns = source.double(), torch.arange(grown[name].shape[1]) % source.shape[1]
            copies = columns.bincount(minlength=source.shape[1])
            # an isometric copy reads sqrt(old / (new * copies)); everywhere else that is 1 / copies
            share = (copies / times).sqrt() if width == 40 else 1.0
            sums = torch.zeros(len(grown[name]), source.shape[1], dtype=torch.float64)
            sums.index_add_(1, columns, grown[name].double())
            wanted = source.repeat(len(sums) // len(source), 1) * share
            normal = wanted.abs() > 16 * torch.finfo(dtype).tiny
            if times == 2:
                assert torch.equal(sums, wanted), name
            elif times == 4:
                assert torch.equal(sums[normal], wanted[normal]), name
            else:
                error = (sums - wanted).abs() / (torch.finfo(dtype).eps * wanted.abs())
                assert error[normal].max() <= 1, name
            halves = grown[name].double().unflatten(1, (2, -1)) if times == 2 else None
            assert halves is None or not torch.equal(halves[:, 0], halves[:, 1])


def train(model, steps: int) -> dict[str, torch.Tensor]:
    """How far each parameter has moved after so many steps of AdamW on random tokens."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        ids = tiny.tokens(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def differences(moved: dict, source) -> dict[tuple[str, int], float]:
    """For each doubled dimension, how much the movements of the two halves differ, relative to their size."""
    found = {}
    for name, parameter in source.named_parameters():
        for dimension, size in enumerate(parameter.shape):
            if moved[name].shape[dimension] == 2 * size and not name.endswith(KEY_BIASES):
                first, second = moved[name].unflatten(dimension, (2, size)).unbind(dimension)
                found[name, dimension] = (2 * (first - second).norm() / (first.norm() + second.norm())).item()
    assert len(found) > 30
    return found


def median(values) -> float:
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("family", ["bert", "gpt_neox", "llama", "phi"])
def test_equal_copies_stay_equal(family):
    """So long as nothing else tells them apart: the reason for splitting."""
    model = tiny.make(family)
    for steps in (1, 20):
        assert max(differences(train(grow(model, hidden=48, noise=0.0), steps), model).values()) < 1e-9


@pytest.mark.parametrize("family", ["bert", "gpt_neox", "llama"])
def test_split_copies_part(family):
    model = tiny.make(family, tie_word_embeddings=family == "bert")
    for steps in (5, 40):
        apart = differences(train(grow(model, hidden=48), steps), model).values()
        assert median(apart) > 0.3 and min(apart) > 1e-4


def test_a_split_of_every_element_parts_copies_faster_than_one_of_every_unit():
    model = tiny.make("llama", tie_word_embeddings=False)
    by_unit = grow(model, hidden=48, noise=0.0)
    generator = torch.Generator().manual_seed(0)
    signs = {size: torch.randint(2, (size,), generator=generator) * 2.0 - 1 for size in (24, 40)}
    for name, parameter in by_unit.named_parameters():
        if is_reader(name, parameter):
            sign = signs[parameter.shape[1] // 2]
            parameter.data *= torch.cat([1 + 0.5 * sign, 1 - 0.5 * sign])
    with torch.no_grad():
        assert tiny.relative(model(tiny.tokens()).logits, by_unit(tiny.tokens()).logits) < 1e-5
    apart = {
        kind: median(differences(train(grown, 5), model).values())
        for kind, grown in (("unit", by_unit), ("element", grow(model, hidden=48, noise=0.5)))
    }
    assert apart["element"] > 10 * apart["unit"]


def largest_gradients(model) -> dict[str, torch.Tensor]:
    """The largest absolute gradient of every entry before and after each of two steps, on every token of the
    vocabulary."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    largest: dict[str, torch.Tensor] = {}
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        ids = torch.stack([torch.randperm(VOCABULARY, generator=generator) for _ in range(6)])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                largest[name] = torch.maximum(largest.get(name, parameter.grad * 0), parameter.grad.abs())
        optimizer.step()
    return largest


def dead_shares(model) -> dict[str, float]:
    """The share of each tensor's entries whose gradients are nothing but rounding."""
    gradients = largest_gradients(model)
    floor = 1e-12 * max(gradient.max() for gradient in gradients.values())
    return {name: (gradient < floor).double().mean().item() for name, gradient in gradients.items()}


TRAINABLE = {
    "copies": [(family, dict(hidden=48)) for family in ("bert", "gpt2", "gemma2")],
    "ffn copies": [("llama", dict(ffn=90)), ("distilbert", dict(ffn=90))],
    "mean filler": [(family, dict(hidden=36)) for family in ("gpt2", "phi")],
    "near growth": [("bert", dict(hidden=40, heads=4)), ("distilbert", dict(hidden=60))],
    "isometric": [("llama", dict(hidden=40, heads=4)), ("gemma", dict(hidden=36)), ("olmo2", dict(hidden=36))],
    "rotary slots": [("llama", dict(head_dim=12)), ("llama", dict(head_dim=10)), ("gemma2", dict(head_dim=12))],
    "slots under a norm": [("qwen3", dict(head_dim=16)), ("qwen3", dict(head_dim=24)), ("olmo2", dict(head_dim=12))],
    "plain slots": [("gpt2", dict(hidden=48, head_dim=12)), ("phi", dict(head_dim=11))],
}


@pytest.mark.parametrize(
    ("family", "growth"),
    [pytest.param(*case, id=f"{name}-{case[0]}") for name, rows in TRAINABLE.items() for case in rows],
)
def test_nothing_new_is_dead(family, growth):
    """Positions no text reaches and units a ReLU silences have no gradient in the source: their share is the
    measure."""
    model = tiny.make(family)
    source, grown = dead_shares(model), dead_shares(grow(model, **growth))
    dead = {name for name, share in grown.items() if share > source[name] + 1e-9 and not name.endswith(KEY_BIASES)}
    assert dead == set()


def test_units_with_nothing_on_either_side_are_found_dead():
    """The mistake that law guards against: new units that neither read nor write (reference, section 6.1)."""
    grown = grow(tiny.make("llama", mlp_bias=False), ffn=90)
    for name, parameter in grown.named_parameters():
        if ".mlp." in name and name.endswith("weight"):
            parameter.data[(slice(None), slice(40, None)) if "down" in name else slice(40, None)] = 0
    dead = dead_shares(grown)
    assert all(dead[f"model.layers.{layer}.mlp.up_proj.weight"] == pytest.approx(50 / 90) for layer in range(3))


def test_the_fillers_of_a_near_growth_part():
    model = tiny.make("bert")
    moved = train(grow(model, hidden=36), 50)
    fillers = moved["bert.encoder.layer.1.intermediate.dense.weight"][:, 24:]
    assert (fillers - fillers.mean(1, keepdim=True)).norm() > 0.01 * fillers.norm()
