"""Whether any of many names stands in a text."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NameFilter"]


class NameFilter:
    """Finds any of some names in a text, names within longer words included.

    Args:
        names: The names to look for.

    Example:
        >>> NameFilter(["王芳"]).occurs("王芳华来了")
        True
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_start: dict[str, list[str]] = {}
        self._single: set[str] = set()
        for name in sorted(set(names)):
            if len(name) == 1:
                self._single.add(name)
            else:
                self._by_start.setdefault(name[:2], []).append(name)

    def occurs(self, text: str) -> bool:
        """Whether any of the names stands anywhere in the text."""
        if self._single and not self._single.isdisjoint(text):
            return True
        by_start = self._by_start
        if not by_start:
            return False
        for start in range(len(text)):
            names = by_start.get(text[start : start + 2])
            if names and any(text.startswith(name, start) for name in names):
                return True
        return False
