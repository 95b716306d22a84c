"""The notation: what a tensor's dimensions are, as text. Knows words and marks; ignorant of sizes, values and maps.

A pattern has one term per dimension in storage order, parts in parentheses are one composite dimension (row-major, as
in einops), and a mark says what the tensor does with the axis:

    "(head query_dim) /hidden"    a weight that writes heads x query_dim and reads (sums over) hidden
    "hidden"                      a bias: it writes what its weight writes
    "~hidden"  "+hidden"          gain and shift of a norm that runs over hidden
    "~/hidden"                    the same for the last norm before the output head: a tied head cannot be rescaled
                                  (it is the embedding), so this norm carries the head's read amplitude for it

"{layer}" and "{expert}" in a tensor's name are axes too; they just live in the name.

Several words can name one size, because one size can play several parts: query_dim, key_dim and value_dim are all
head_dim, but a key may be padded with zeros where a value is copied. BASE holds those relations.
"""

import re
from dataclasses import dataclass
from functools import cache

# axis -> the axis that has its size in the config
BASE = {
    "query_head": "head",  # heads of a query that a norm runs over (OLMo 2)
    "key_head": "kv_head",
    "query_dim": "head_dim",
    "key_dim": "head_dim",
    "value_dim": "head_dim",
    "pooled": "hidden",  # the pooler's output: same size as hidden, but not the residual stream
    "head_hidden": "hidden",  # what the masked-LM head's own layer writes
    "head_embedding": "embedding",  # the same where a tied head is as wide as the embeddings
}
# sizes come from config.json; in a mixture of experts ffn is the experts' width, beside that of a shared expert and
# that of layers without experts; embedding is the width of embeddings that a projection makes hidden: it never grows,
# except where the two are equal and there is no projection, so that it is hidden
SIZED = ("hidden", "embedding", "head", "kv_head", "head_dim", "ffn", "shared_ffn", "dense_ffn", "expert", "vocab")
UNSIZED = ("position", "type", "bucket", "label", "gate")  # sizes come from the tensor itself
QKV = "qkv"  # a fused projection: three blocks, whose head_dim is query_dim, key_dim and value_dim in turn
WORDS = frozenset((*BASE, *SIZED, *UNSIZED, QKV))

WRITE, READ, GAIN, SHIFT = "write", "read", "gain", "shift"
_ROLES = {"": WRITE, "/": READ, "~": GAIN, "+": SHIFT}
_TERM = re.compile(r"([~+]?/?)(\([a-z_ ]+\)|[a-z_]+)")


@dataclass(frozen=True)
class Dimension:
    """One dimension of one tensor: its axes in row-major order, its role, and whether a tied head reads behind it."""

    axes: tuple[str, ...]
    role: str
    before_head: bool = False


@cache
def parse(pattern: str) -> tuple[Dimension, ...]:
    """Read a pattern such as "(head query_dim) /hidden" into one Dimension per term.

    Raises ValueError for text that is not a pattern or for an unknown word: patterns are growkit's own data, so this is
    a mistake in a family's table and not a user's.
    """
    dimensions = []
    for term in re.findall(r"[^\s(]*\([^)]*\)|\S+", pattern):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ValueError(f"{term!r} in pattern {pattern!r} is not an axis term")
        mark, body = match.groups()
        axes = tuple(body.strip("()").split())
        unknown = [axis for axis in axes if axis not in WORDS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} in pattern {pattern!r} is not one of the axis words {sorted(WORDS)}")
        before_head = len(mark) == 2
        dimensions.append(Dimension(axes, _ROLES[mark[0] if before_head else mark], before_head))
    return tuple(dimensions)


def base(axis: str) -> str:
    """The axis whose size this one shares: base("query_dim") == "head_dim"; most axes are their own base."""
    return BASE.get(axis, axis)
