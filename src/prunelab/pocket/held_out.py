"""What is kept from training, decided by a hash of the item itself."""

from __future__ import annotations

import hashlib


def digest(*key: object) -> int:
    """A number below 2^64 that is the same everywhere and always."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


def is_held_out(*key: object, share: float = 0.2) -> bool:
    """Whether an item belongs to the benchmarks and never to training.

    Args:
        key: what makes the item, such as the task and its numbers; not the words around it.
        share: of all possible items.
    """
    return digest(*key) < share * 2**64
