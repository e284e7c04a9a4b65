"""The split between training and benchmarks, decided by a hash of each item."""

from __future__ import annotations

import hashlib


def digest(*key: object) -> int:
    """A reproducible hash below 2^64."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


def is_held_out(*key: object, share: float = 0.2) -> bool:
    """Whether an item is held out for benchmarks.

    Args:
        key: the item's content, such as the task and its numbers, without its wording.
        share: share of all possible items that is held out.
    """
    return digest(*key) < share * 2**64
