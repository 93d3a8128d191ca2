"""Random numbers that follow from what they are drawn for, whatever was drawn before."""

from __future__ import annotations

import hashlib
import random

__all__ = ["seeded_random"]


def seeded_random(*parts: object) -> random.Random:
    """A generator that is the same for the same texts of some values, in order.

    Example:
        >>> seeded_random(0, "甲").random() == seeded_random(0, "甲").random()
        True
    """
    key = "\n".join(map(str, parts)).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big"))
