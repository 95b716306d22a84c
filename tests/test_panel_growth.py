"""Controls and panels of a model that is grown exactly: a control grown by the same maps does the same, and what is the
same of the panels themselves."""

import pytest
import tiny
import torch

from growkit import grow_state_dict
from growkit.families import FAMILIES
from growkit.skills.bases import input_directions, kept, output_directions, stacked
from growkit.skills.controlled import input_groups
from growkit.skills.layer_inputs import LayerInputs

RANK, LAYER = 5, 1
EVEN, UNEVEN = {"hidden": 48}, {"hidden": 36}
FFN, STREAM = {"hidden": 48, "ffn": 56}, {"hidden": 36, "ffn": 80}  # uneven there alone


def groups_of(model):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    groups = input_groups(FAMILIES[config["model_type"]], config, shapes, range(3), "all")
    return {group.name: group for group in groups}


def grown(model, state=None, noise=0.5, **sizes):
    return grow_state_dict(model.state_dict() if state is None else state, model.config, noise=noise, **sizes)


def matrix(state, weight):
    return state[weight.name].T if weight.across else state[weight.name]


def lifted(model, changes, **sizes):
    """Changes of weights, {name: (out, in)}, grown by the maps of the model's growth and nothing else."""
    state = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    across = {weight.name: weight.across for group in groups_of(model).values() for weight in group.weights}
    for name, change in changes.items():
        state[name] = change.T if across[name] else change
    new, _ = grown(model, state, noise=0.0, **sizes)
    return {name: new[name].T if across[name] else new[name] for name in changes}


def added(state, groups, changes):
    across = {weight.name: weight.across for group in groups.values() for weight in group.weights}
    return {
        name: t + (changes[name].T if across[name] else changes[name]) if name in changes else t
        for name, t in state.items()
    }


def apart(one, other):
    """How far the spaces of two matrices' columns are from one another."""
    bases = [torch.linalg.qr(side).Q for side in (one, other)]
    return float((bases[0] @ bases[0].T - bases[1] @ bases[1].T).abs().max())


@pytest.mark.parametrize("family, sizes", [
    ("gpt2", EVEN), ("bert", EVEN), ("qwen2_moe", EVEN), ("llama", UNEVEN), ("gemma2", UNEVEN),
], ids=str)  # fmt: skip
def test_a_control_grown_by_the_same_maps_does_the_same(family, sizes):
    """Whatever the width and the noise: a skill on the base, grown, is the skill on the grown base. Its rank stays."""
    model, draws = tiny.make(family), torch.Generator().manual_seed(0)
    groups, ids = groups_of(model), tiny.tokens()
    changes = {
        weight.name: 0.2 * torch.randn(weight.out, 3, generator=draws, dtype=torch.float64)
        @ torch.randn(3, weight.width, generator=draws, dtype=torch.float64)
        for group in groups.values() for weight in group.weights
    }  # fmt: skip
    state, config = grown(model, **sizes)
    changes_grown = lifted(model, changes, **sizes)
    before, after = added(model.state_dict(), groups, changes), added(state, groups, changes_grown)
    with tiny.float32_parts_in_double(), torch.no_grad():
        plain = model(input_ids=ids).logits
        small = tiny.rebuild(model, before, model.config.to_dict())(input_ids=ids).logits
        large = tiny.rebuild(model, after, config)(input_ids=ids).logits
    assert tiny.relative(small, large) < 1e-10 < 1e-2 < tiny.relative(plain, small)
    assert all(torch.linalg.matrix_rank(change) <= 3 for change in changes_grown.values())


def seen(model, moments, group):
    """(V, U of the first weight, what that keeps of the text) of a group's panel; moments None: by singular vectors."""
    state = model.state_dict()
    rows = stacked([matrix(state, weight) for weight in group.weights], moments)
    basis = input_directions(rows, RANK, torch.Generator().manual_seed(0), moments).basis
    first = matrix(state, group.weights[0])
    left, control = output_directions(first, basis, moments)
    return basis, left, kept(first, left, control, basis, moments)


@pytest.mark.parametrize("sizes, noise, data, same", [
    (EVEN, 0.0, False, True), (EVEN, 0.5, False, False), (FFN, 0.0, False, False),
    (EVEN, 0.0, True, True), (EVEN, 0.5, True, True), (FFN, 0.5, True, False),
    (STREAM, 0.0, False, True), (STREAM, 0.5, True, True),
], ids=str)  # fmt: skip
def test_the_panel_of_a_widened_model_is_the_panel_widened_where_maps_keep_angles(sizes, noise, data, same):
    """Of an inner input (ffn) and one of the residual stream: what is read of any text, and where it is written.

    Singular vectors are those of the panel grown where every unit has as many copies and these are equal; noise tells
    copies apart and turns them. Uneven copies on the residual stream keep angles. Moments of a text know only what
    reaches the weights, whatever the noise.
    """
    model = tiny.make("llama")
    state, config = grown(model, noise=noise, **sizes)
    ids, groups = tiny.tokens(batch=20, length=12), groups_of(model)
    differ, energies = [], []
    with tiny.float32_parts_in_double():
        large = tiny.rebuild(model, state, config)
        for name in ("mlp.input", "mlp.down_proj.input"):
            group, wide = (side[f"model.layers.{LAYER}.{name}"] for side in (groups, groups_of(large)))
            module = {"x": group.weights[0].name.removesuffix(".weight")}
            read = [inputs_of(which, ids, module["x"]) for which in (model, large)]
            moments = [LayerInputs(which, ids).moments(LAYER, module)["x"] for which in (model, large)]
            sides = [
                seen(which, moment if data else None, one)
                for which, moment, one in zip((model, large), moments, (group, wide))
            ]
            (v, u, energy), (v_wide, u_wide, energy_wide) = sides
            differ.append(apart(read[0] @ v, read[1] @ v_wide))
            energies.append(abs(energy - energy_wide))
            columns = torch.zeros(group.weights[0].out, group.width, dtype=torch.float64)
            columns[:, :RANK] = u
            onto = torch.linalg.svd(lifted(model, {group.weights[0].name: columns}, **sizes)[group.weights[0].name])[0]
            differ.append(apart(onto[:, :RANK], u_wide))
    assert (max(differ) < 1e-8) == same
    assert not same or noise or max(energies) < 1e-8


def inputs_of(model, ids, module):
    """(tokens, in) that a module reads."""
    read = []
    hook = model.get_submodule(module).register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].flatten(0, -2))
    )
    with torch.no_grad():
        model(input_ids=ids)
    hook.remove()
    return read[0]
