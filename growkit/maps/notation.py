"""The notation: what a tensor's dimensions are, as text. Knows words and marks; ignorant of sizes, values and maps.

A pattern has one term per dimension in storage order, parts in parentheses are one composite dimension (row-major, as
in einops), and a mark says what the tensor does with the axis:

    "(head query_dim) /hidden"    a weight that writes heads x query_dim and reads (sums over) hidden
    "hidden"                      a bias: it writes what its weight writes
    "hidden /hidden /kernel"      a convolution: it sums over places too; one of an image has two kernels
    "one one hidden"              a token of no text, or a grid of positions, as stored: (1, 1, hidden)
    "~hidden"  "+hidden"          gain and shift of a norm that runs over hidden
    "~/hidden"                    the same for the last norm before the output head: a tied head cannot be rescaled
                                  (it is the embedding), so this norm carries the head's read amplitude for it

A dimension may be several blocks one after another, as fused projections have it, or dealt out: so much of each block
for the first of an axis (or of a number of equal parts), then for the second:

    "(head query_dim | kv_head key_dim | kv_head value_dim)"          all queries, all keys, all values
    "(kv_head: head query_dim | kv_head key_dim | kv_head value_dim)" for each kv head its queries, its key, its value

"..." is a tensor of any number of dimensions that is carried along as it is, such as those of a tower beside a text
model.

"{layer}" and "{expert}" in a tensor's name are axes too; they just live in the name.

Several words can name one size, because one size can play several parts: query_dim, key_dim and value_dim are all
head_dim, but a key may be padded with zeros where a value is copied. BASE holds those relations.
"""

import re
from dataclasses import dataclass, replace
from functools import cache, cached_property

# axis -> the axis that has its size in the config
BASE = {
    "query_head": "head",  # heads of a query that a norm runs over (OLMo 2)
    "key_head": "kv_head",
    "query_dim": "head_dim",
    "key_dim": "head_dim",
    "value_dim": "head_dim",
    # the stream where a norm or an activation writes it before the first layer, and norms stand before blocks
    "normed": "hidden",
    "pooled": "hidden",  # the pooler's output: same size as hidden, but not the residual stream
    "head_hidden": "hidden",  # what the masked-LM head's own layer writes
    "head_embedding": "embedding",  # the same where a tied head is as wide as the embeddings
}
# sizes come from config.json; in a mixture of experts ffn is the experts' width, beside that of a shared expert and
# that of layers without experts; embedding is the width of embeddings that a projection makes hidden: it never grows,
# except where the two are equal and there is no projection, so that it is hidden
SIZED = ("hidden", "embedding", "head", "kv_head", "head_dim", "ffn", "shared_ffn", "dense_ffn", "expert", "vocab")
# these never grow: how many times as wide as a routed expert what all tokens pass is (DeepSeek), and of attention
# through low-rank latents their ranks, the part of a head without positions and the part that turns
KEPT = ("shared", "q_rank", "kv_rank", "nope_dim", "rope_dim")
ANY = "any"  # what "..." stands for
PAIR = "pair"  # two entries next to one another: of a gate and of what it gates (GPT-OSS)
# sizes come from the tensor itself; space is one that others share, such as images and texts, so that it never grows
UNSIZED = ("position", "type", "bucket", "kernel", "label", "gate", "one", "channel", "space", ANY)
WORDS = frozenset((*BASE, *SIZED, *KEPT, PAIR, *UNSIZED))

WRITE, READ, GAIN, SHIFT = "write", "read", "gain", "shift"
_ROLES = {"": WRITE, "/": READ, "~": GAIN, "+": SHIFT}
_TERM = re.compile(r"([~+]?/?)(?:([a-z_]+)|\((?:(\w+): *)?([a-z_ |]+)\))")


@dataclass(frozen=True)
class Dimension:
    """One dimension of one tensor: the axes of its blocks in row-major order (most have one block), its role, whether a
    tied head reads behind it, and the axis or number of parts by which its blocks are dealt out; "" for none.
    """

    blocks: tuple[tuple[str, ...], ...]
    role: str
    before_head: bool = False
    dealt: str = ""

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The axes of all blocks, one after another."""
        return tuple(axis for block in self.blocks for axis in block)


@cache
def parse(pattern: str) -> tuple[Dimension, ...]:
    """Read a pattern such as "(head query_dim) /hidden" into one Dimension per term.

    Raises ValueError for text that is not a pattern or for an unknown word: patterns are growkit's own data, so this is
    a mistake in a family's table and not a user's.
    """
    dimensions = []
    pattern = ANY if pattern == "..." else pattern
    for term in re.findall(r"[^\s(]*\([^)]*\)|\S+", pattern):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ValueError(f"{term!r} in pattern {pattern!r} is not an axis term")
        mark, single, dealt, several = match.groups()
        blocks = tuple(tuple(block.split()) for block in (single or several).split("|"))
        words = [*(axis for block in blocks for axis in block), *([dealt] if dealt and not dealt.isdigit() else [])]
        unknown = [axis for axis in words if axis not in WORDS]
        if unknown or not all(blocks):
            wrong = unknown[0] if unknown else ""
            raise ValueError(f"{wrong!r} in pattern {pattern!r} is not one of the axis words {sorted(WORDS)}")
        before_head = len(mark) == 2
        role = _ROLES[mark[0] if before_head else mark]
        dimensions.append(Dimension(blocks, role, before_head, dealt or ""))
    return tuple(dimensions)


def is_any(dimensions: tuple[Dimension, ...]) -> bool:
    """Whether a tensor is carried along as it is, whatever dimensions it has."""
    return bool(dimensions) and dimensions[0].axes == (ANY,)


def by_token(dimensions: tuple[Dimension, ...]) -> bool:
    """Whether a tensor has a row for each entry of the vocabulary."""
    return bool(dimensions) and dimensions[0].axes == ("vocab",)


def spread(dimensions: tuple[Dimension, ...], rank: int) -> tuple[Dimension, ...]:
    """The dimensions of a tensor that has so many: one of any stands for all."""
    if not is_any(dimensions):
        return dimensions
    return (dimensions[0], *(replace(dimensions[0], role=READ) for _ in range(rank - 1)))[:rank]


def base(axis: str) -> str:
    """The axis whose size this one shares: base("query_dim") == "head_dim"; most axes are their own base."""
    return BASE.get(axis, axis)
