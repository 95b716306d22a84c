"""Which sizes a model has and which it will have. Knows families' config keys and what transformers accepts; ignorant
of tensors, maps and files.
"""

from collections.abc import Callable, Mapping
from typing import Any

from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.families.keys import key_names, keys_to_read
from growkit.families.stock_config import stated_under
from growkit.families.text_part import BESIDE
from growkit.growth.width.rotary import rotary_size
from growkit.limits import AXIS
from growkit.maps.notation import KEPT, SIZED

OPTIONS = {
    "hidden": "--hidden",
    "head": "--heads",
    "kv_head": "--kv-heads",
    "head_dim": "--head-dim",
    "ffn": "--ffn",
}
FOLLOWERS = ("shared_ffn", "dense_ffn")  # widths that keep their ratio to the experts' one, ffn

Sizes = dict[str, int]


def read_sizes(family: Family, config: Mapping[str, Any]) -> Sizes:
    """The sizes a config states, completed by the rules transformers completes them with.

    Raises CheckpointError for keys that are missing, are no positive whole numbers, or contradict one another.
    """
    sizes: Sizes = {}
    for axis, keys in family.sizes.items():
        for key in keys_to_read(keys, config):
            if axis not in (*SIZED, *KEPT, "layer"):
                continue
            value, said = family.value(config, key), key.removeprefix(f"{BESIDE}.")
            # what stands beside a text model may leave to its class a size that the text model states
            if value is None and (axis in ("head_dim", "kv_head", "ffn", "embedding", "q_rank") or said != key):
                continue
            if type(value) is not int or not 1 <= value <= AXIS:
                raise CheckpointError(f"config.json should give {said!r} as a positive whole number, not {value!r}")
            for name in stated_under(family.model_type, config, key, family.size_keys):
                stated = config.get(name, value) if name != key else value
                if sizes.setdefault(axis, value) != stated:
                    raise CheckpointError(
                        f"config.json gives {key_names(keys)[0]} as {sizes[axis]} but {name.removeprefix(f'{BESIDE}.')!r} as"
                        f" {stated}; growkit grows models where they are one size"
                    )
    sizes.setdefault("ffn", family.ffn_of(config, sizes["hidden"]))  # GPT-2's n_inner: null
    if sizes["head"] % family.head_parts:
        raise CheckpointError(
            f"config.json has {sizes['head']} heads, but a {family.model_type} has them in {family.head_parts} equal parts"
        )
    if not family.groups_heads(config):
        sizes["kv_head"] = 1 if family.shares_kv(config) else sizes["head"]
    sizes.setdefault("kv_head", sizes["head"])
    if "embedding" in family.sizes:
        sizes.setdefault("embedding", sizes["hidden"])
    if "head_dim" not in sizes:
        if sizes["hidden"] % sizes["head"]:
            raise CheckpointError(
                f"config.json has {sizes['hidden']} hidden for {sizes['head']} heads, which does not divide"
            )
        sizes["head_dim"] = sizes["hidden"] // sizes["head"]
    if sizes["head"] % sizes["kv_head"]:
        raise CheckpointError(
            f"config.json has {sizes['head']} heads for {sizes['kv_head']} kv heads, which does not divide"
        )
    return sizes


def target_sizes(family: Family, config: Mapping[str, Any], request: Mapping[str, int | None]) -> Sizes:
    """The sizes to grow to: what was asked, and for the rest what keeps the model's proportions.

    With hidden alone, heads grow with head_dim kept, kv heads keep query heads per kv head, ffn keeps its ratio to
    hidden. Raises RequestError for what cannot be, naming the nearest sizes that can.
    """
    old = read_sizes(family, config)
    asked = {axis: size for axis, size in request.items() if size is not None}
    rotary = rotary_size(family, config, old["head_dim"])
    for axis, size in asked.items():
        if axis == "kv_head" and not family.groups_heads(config):
            own = "one for all heads" if family.shares_kv(config) else "one for each head"
            raise RequestError(f"{family.model_type} has no kv heads of their own but {own}; use --heads")
        if axis == "expert" and not family.is_moe:
            raise RequestError(
                f"a {family.model_type} has no experts to copy; growkit upcycle makes a mixture of a dense model"
            )
        if axis == "ffn" and axis not in family.sizes:
            raise RequestError(
                f"{family.model_type} has no ffn of its own: it is {family.ffn_ratio or 4} x hidden; use --hidden"
            )
        if size < old[axis]:
            raise RequestError(
                f"{OPTIONS.get(axis, '--experts')} {size} is smaller than the source's {old[axis]}; growkit only grows"
            )
    if family.shares_kv(config):
        asked["kv_head"] = 1
    forbidden = family.forbidden(config)
    if "head" in forbidden:
        asked.setdefault("head", old["head"])
    resolve = _with_own_head_dim if family.own_head_dim else _heads_fill_hidden

    def attempt(values: Mapping[str, int]) -> Sizes | str:
        new = resolve(old, values)
        if isinstance(new, str):
            return new
        if family.ffn_ratio:
            new["ffn"] = family.ffn_of(config, new["hidden"])
        if old.get("embedding") == old["hidden"] and not family.projected:
            new["embedding"] = new["hidden"]
        return _refusal(family, old, new, rotary, family.norms_heads(config)) or new

    outcome = attempt(asked)
    if isinstance(outcome, str):
        raise RequestError(outcome + _nearest(asked, old, lambda values: not isinstance(attempt(values), str)))
    for axis, sentence in forbidden.items():
        if outcome[axis] != old[axis]:
            raise RequestError(sentence)
    for key, (off, axes, why) in family.only_multiples.items():
        uneven = [axis for axis in axes if outcome[axis] % old[axis]]
        if uneven and family.value(config, key) not in off:
            raise RequestError(
                f"{uneven[0]} grows by multiples of {old[uneven[0]]} with {key} {family.value(config, key)!r}: {why}"
            )
    return outcome


def _with_own_head_dim(old: Sizes, asked: Mapping[str, int]) -> Sizes | str:
    """Sizes where head_dim is a config key of its own; a sentence where they do not come out whole."""
    new = {**old, **asked}
    if "head" not in asked and "hidden" in asked:
        if old["head"] * new["hidden"] % old["hidden"]:
            ratio = old["head"] * new["hidden"] / old["hidden"]
            return (
                f"--hidden {new['hidden']} in proportion gives {ratio:.2f} heads; set --heads, or take a width that"
                " divides"
            )
        new["head"] = old["head"] * new["hidden"] // old["hidden"]
    return _with_ffn(old, _with_groups(old, new, asked), asked)


def _heads_fill_hidden(old: Sizes, asked: Mapping[str, int]) -> Sizes | str:
    """Sizes where heads * head_dim is hidden by construction."""
    new = {**old, **asked}
    if "hidden" not in asked:
        new["hidden"] = new["head"] * new["head_dim"]
    elif "head" in asked:
        if new["hidden"] % new["head"]:
            return f"--hidden {new['hidden']} is no multiple of --heads {new['head']}"
        new["head_dim"] = asked.get("head_dim", new["hidden"] // new["head"])
    if new["hidden"] % new["head_dim"]:
        return f"hidden {new['hidden']} is no multiple of head_dim {new['head_dim']}"
    new["head"] = new["hidden"] // new["head_dim"]
    new = _with_groups(old, new, asked)
    if "head" in asked and asked["head"] != new["head"]:
        return (
            f"--heads {asked['head']} x --head-dim {new['head_dim']} is {asked['head'] * new['head_dim']}, but in this"
            f" family it must be hidden, {new['hidden']}"
        )
    return _with_ffn(old, new, asked)


def _with_groups(old: Sizes, new: Sizes, asked: Mapping[str, int]) -> Sizes:
    """As many query heads for each kv head as before, where heads change and that comes out whole."""
    group = old["head"] // old["kv_head"]
    whole = "kv_head" not in asked and new["head"] != old["head"] and new["head"] % group == 0
    return {**new, "kv_head": new["head"] // group} if whole else new


def _with_ffn(old: Sizes, new: Sizes, asked: Mapping[str, int]) -> Sizes:
    if "ffn" not in asked and new["hidden"] != old["hidden"]:
        new["ffn"] = _in_proportion(old["ffn"], new["hidden"], old["hidden"])
    for axis in FOLLOWERS:
        if axis in old:
            new[axis] = _in_proportion(old[axis], new["ffn"], old["ffn"])
    return new


def _in_proportion(size: int, new: int, old: int) -> int:
    """size * new / old; where that is not whole, the nearest size as even as the old one was, up to 64."""
    exact, rest = divmod(size * new, old)
    step = min(64, size & -size)
    return exact if rest == 0 else max(size, round(exact / step) * step)


def _refusal(family: Family, old: Sizes, new: Sizes, rotary: int, norms_heads: bool) -> str | None:
    """Why stock transformers or growkit's maps cannot have these sizes, or None.

    rotary: how many slots of a head turn. norms_heads: whether a norm runs over q and k.
    """
    for axis in OPTIONS:
        if new[axis] < old[axis]:
            return f"these sizes need {axis} {new[axis]}, fewer than the source's {old[axis]}"
    group, old_group = new["head"] // new["kv_head"], old["head"] // old["kv_head"]
    if (
        old.get("embedding", old["hidden"]) != old["hidden"]
        and new["embedding"] == new["hidden"]
        and not family.projected
    ):
        return (
            f"hidden {new['hidden']} is the width of the embeddings, for which transformers' {family.model_type} has no"
            " projection from one to the other, which the source has"
        )
    if family.hidden_by_heads and new["hidden"] % new["head"]:
        return (
            f"transformers' {family.model_type} needs hidden {new['hidden']} to be a multiple of its {new['head']}"
            " heads"
        )
    if new["head"] % family.head_parts:
        return f"{new['head']} heads are no multiple of the {family.head_parts} parts a {family.model_type} has them in"
    if new["head"] % new["kv_head"]:
        return f"{new['head']} heads are no multiple of {new['kv_head']} kv heads"
    if old["kv_head"] * -(-old_group // group) > new["kv_head"]:
        return (
            f"{new['head']} heads over {new['kv_head']} kv heads cannot hold the source's {old['head']} over"
            f" {old['kv_head']}: each kv head would have {group} query heads for {old_group}"
        )
    if new["head_dim"] != old["head_dim"]:
        if rotary == old["head_dim"] and new["head_dim"] % 2:
            return f"head_dim {new['head_dim']} is odd, and rotary positions turn slots in pairs"
        if norms_heads and new["head_dim"] % old["head_dim"]:
            return (
                f"head_dim {new['head_dim']} is no multiple of {old['head_dim']}, and {family.model_type} takes a norm"
                " over each head that only whole copies keep"
            )
    return None


def _nearest(asked: Mapping[str, int], old: Sizes, works: Callable[[Mapping[str, int]], bool]) -> str:
    """'; nearest that work: --hidden 768 or 1024', by walking outwards along one option that was given."""
    for axis in [axis for axis in asked if axis in OPTIONS]:
        sizes = []
        for direction in (-1, 1):
            for distance in range(1, 4 * old[axis] + 64):
                size = asked[axis] + direction * distance
                if size < old[axis]:
                    break
                if works({**asked, axis: size}):
                    sizes.append(size)
                    break
        if sizes:
            return f"; nearest that work: {OPTIONS[axis]} {' or '.join(map(str, sorted(sizes)))}"
    return ""
