"""Random numbers that belong to places of a tensor. Knows seeds and element numbers; ignorant of what is decided by
them.

Element i of a stream is the same number whoever draws it and with whatever else: in blocks of any size, in any order,
on any thread. That takes a generator that can be advanced. torch's cannot, and its CPU generator moreover uses 32 bits
of a seed; numpy's PCG64DXSM (O'Neill, HMC-CS-2014-0905; numpy guarantees its stream) can, takes 128 bits, and is the
faster one.
"""

from hashlib import blake2b

import numpy as np


def draws(seed: int, name: str, start: int, count: int) -> np.ndarray:
    """Elements [start, start + count) of a named stream: (count,) independent uniform uint32."""
    key = blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    stream = np.random.PCG64DXSM(int.from_bytes(key, "little"))
    first = start // 2  # a word of 64 bits is two draws
    stream.advance(first)
    words = stream.random_raw((start + count + 1) // 2 - first)
    return words.astype("<u8", copy=False).view("<u4")[start - 2 * first :][:count]


def threshold(probability: np.ndarray | float) -> np.ndarray:
    """What a draw must reach so as to do it with 1 - probability; exact to 2**-33, in uint32 (0 is always reached)."""
    return np.minimum(np.rint(np.asarray(probability, dtype=np.float64) * 2**32), 2**32 - 1).astype(np.uint32)
