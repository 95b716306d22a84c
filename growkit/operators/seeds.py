"""Seeds that depend on names alone, so that order, threads and shards cannot change a result."""

from hashlib import blake2b

import torch


def stable_seed(seed: int, name: str) -> int:
    """A 63-bit seed from a run's seed and what is being drawn; the same in every process and on every machine."""
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """A generator for one named purpose."""
    return torch.Generator().manual_seed(stable_seed(seed, name))
