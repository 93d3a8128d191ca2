"""Validation texts that the training data hold too, whose scores say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tripletune.data.duplicates import TextIndex

__all__ = ["find_leaks"]


def find_leaks(training: Iterable[str], validation: Sequence[str]) -> list[int]:
    """Indices of the validation texts that are training texts, but for form, in order.

    Near duplicates are left to `tripletune data check`: to look for them takes longer.

    Args:
        training: Texts that are not empty.
        validation: Likewise.
    """
    with TextIndex(threshold=None) as index:
        for texts in (training, validation):
            index.start_file()
            for text in texts:
                index.add(text)
        first = len(index) - len(validation)
        return sorted(match.index - first for match in index.find_matches() if match.is_leak)
