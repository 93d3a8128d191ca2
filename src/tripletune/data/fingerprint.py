"""Fingerprints of texts: equal, equal but for form, and nearly equal.

Near equality is the Jaccard similarity of the sets of three-character pieces of the normalised
texts, estimated by MinHash.

Source: Broder, "On the resemblance and containment of documents" (1997).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NUM_BANDS",
    "compute_bands",
    "compute_similarity",
    "normalise_text",
    "split_pieces",
]

NUM_BANDS = 8
"""How many band keys a text has; two texts that share one are compared."""

_ROWS_PER_BAND = 4
_NUM_HASHES = NUM_BANDS * _ROWS_PER_BAND
_PIECE = 3
_RANDOM = np.random.Generator(np.random.PCG64(20_240_917))
_FACTORS = _RANDOM.integers(1, 1 << 63, size=_NUM_HASHES, dtype=np.uint64) | np.uint64(1)
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def normalise_text(text: str) -> str:
    """The text in compatibility form and lower case, without white space and punctuation.

    A text of nothing but punctuation stays as it is.

    Example:
        >>> normalise_text("Ａpple  公司，成立！")
        'apple公司成立'
    """
    form = "".join(filter(str.isalnum, text))
    if not form.isascii() and not unicodedata.is_normalized("NFKC", form):
        form = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", form)))
    return form.casefold() or text


def split_pieces(normalised: str) -> frozenset[str]:
    """The three-character pieces of a normalised text (the text itself when it is shorter)."""
    if len(normalised) <= _PIECE:
        return frozenset((normalised,))
    return frozenset(normalised[i : i + _PIECE] for i in range(len(normalised) - _PIECE + 1))


def compute_similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard similarity of two sets of pieces, from 0 to 1."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def compute_bands(normalised: Sequence[str]) -> NDArray[np.uint64]:
    """The band keys of some normalised texts, one row a text, `NUM_BANDS` columns.

    Texts with similarity 0.8 share at least one key with probability 0.985, at 0.9 with 0.9998,
    at 0.5 with 0.4.
    """
    codes, starts = _join_codes(normalised)
    pieces = codes[:-2] * _MIX[0]
    pieces ^= np.left_shift(codes[1:-1] * _MIX[1], np.uint64(1))
    pieces += codes[2:] * _MIX[2]
    pieces ^= pieces >> np.uint64(29)
    # The last two places of each text reach into the next one: they repeat its first piece.
    ends = np.append(starts[1:], len(pieces))
    pieces[ends - 1] = pieces[ends - 2] = pieces[starts]
    minima = np.empty((_NUM_HASHES, len(normalised)), dtype=np.uint64)
    for row, factor in enumerate(_FACTORS):
        hashed = pieces * factor
        hashed >>= np.uint64(20)
        minima[row] = np.minimum.reduceat(hashed, starts)
    keys = np.zeros((NUM_BANDS, len(normalised)), dtype=np.uint64)
    for row in range(_ROWS_PER_BAND):
        keys *= _MIX[2]
        keys ^= minima[row::_ROWS_PER_BAND]
        keys ^= keys >> np.uint64(31)
    return np.ascontiguousarray(keys.T)


def _join_codes(normalised: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """All code points in one row, and where each text begins.

    Each text is followed by the two code points it begins with, so that every text, however short,
    has as many pieces as characters; two more at the very end make the row long enough.
    """
    joined = "".join([text + (text * 2)[:2] for text in normalised]) + "  "
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter((len(text) + 2 for text in normalised), dtype=np.intp)
    starts = np.zeros(len(normalised), dtype=np.intp)
    np.cumsum(lengths[:-1], out=starts[1:])
    return codes.astype(np.uint64), starts
