"""`grow` for a model in memory, from state dict to state dict."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from growkit.api import words as w
from growkit.api.public import public

if TYPE_CHECKING:
    import torch


@public
def grow_state_dict(
    state: Mapping[str, "torch.Tensor"],
    config: Any,
    *,
    hidden: w.Hidden = None,
    heads: w.Heads = None,
    kv_heads: w.KvHeads = None,
    head_dim: w.HeadDim = None,
    ffn: w.Ffn = None,
    experts: w.Experts = None,
    top_k: w.TopK = None,
    layers: w.Layers = None,
    depth: w.DepthHow = "stack",
    overlap: w.Overlap = None,
    after: w.After = None,
    every: w.Every = None,
    where: w.Where = None,
    block: w.Block = None,
    slices: w.Slices = None,
    method: w.WidthMethod = "fpi",
    mapping: w.Mapping = "cyclic",
    noise: w.Noise = None,
    keep: w.Keep = None,
    seed: w.Seed = 0,
    dtype: w.Dtype = None,
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Grow a live model's state dict: (new state, new config as a dict), on the CPU, bit for bit what `grow` writes.

    state: tensors by name, in the shapes that the model has them. config: a transformers config or its dict. The
    request is that of `grow`. Experts may be stacked, as live models hold them, or one by one, as files do; they stay
    as they come. The model itself is not changed; build the new one from the new config and load the new state.

    Raises CheckpointError for a state that is no model of a known family, RequestError for what cannot be grown.
    """
    from growkit.api.growing import drawn_as_new
    from growkit.growth.request import grow_recipe
    from growkit.growth.state_dict import grown_state

    request = grow_recipe(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, layers=layers, depth=depth,
        overlap=overlap, after=after, every=every, where=where, block=block, slices=slices, method=method, mapping=mapping,
        noise=noise, keep=keep, seed=seed, dtype=dtype, experts=experts, top_k=top_k,
    )  # fmt: skip
    return grown_state(state, config, request, drawn_as_new)
