"""Random numbers to draw tokens with, which depend on nothing but what they are for.

The likeliest of logits to which Gumbel noise is added is a draw from their softmax. Noise that
follows from a seed, a place in the output and the token alone makes a draw the same in every batch,
order and process.

Source: Gumbel-max trick, Maddison, Tarlow and Minka, A* Sampling (NeurIPS 2014), section 2; the
numbers are those of SplitMix64, Steele, Lea and Flood, Fast Splittable Pseudorandom Number
Generators (OOPSLA 2014), figure 16.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from tripletune.extraction.states import TokenArray

__all__ = ["Noise", "derive_seed", "draw_gumbel"]

Noise = NDArray[np.float32]

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ALL = 2**64 - 1


def derive_seed(*parts: object) -> int:
    """64 bits that follow from the text of some values, in order."""
    key = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def draw_gumbel(seed: int, place: int, token_ids: TokenArray) -> Noise:
    """Standard Gumbel noise (N,) for tokens (N,) at a place of an output.

    Args:
        seed: Of the output, 64 bits.
        place: From 0.
        token_ids: The order does not matter: each token has its number.
    """
    start = np.uint64((seed + (place + 1) * _GOLDEN) & _ALL)
    state = _mix(np.atleast_1d(start)) + token_ids.astype(np.uint64) * np.uint64(_GOLDEN)
    uniform = ((_mix(state) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # within (0, 1)
    noise: Noise = -np.log(-np.log(uniform)).astype(np.float32)
    return noise


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed
