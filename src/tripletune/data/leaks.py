"""Validation texts that the training data hold too, whose scores say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from tripletune.data.fingerprint import normalise_text

__all__ = ["find_leaks"]


def find_leaks(training: Iterable[str], validation: Sequence[str]) -> list[int]:
    """Indices of the validation texts that are training texts, but for form, in order.

    Near duplicates are found by `TextIndex` (`tripletune data check`), which takes longer.
    """
    places: dict[bytes, list[int]] = {}
    for index, text in enumerate(validation):
        places.setdefault(_digest(text), []).append(index)
    leaked: list[int] = []
    for text in training:
        leaked += places.pop(_digest(text), ())
        if not places:
            break
    return sorted(leaked)


def _digest(text: str) -> bytes:
    normal = normalise_text(text).encode("utf-8", "surrogatepass")
    return blake2b(normal, digest_size=16).digest()
