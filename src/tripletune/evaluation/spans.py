"""Where names stand in a text, and which wrong triplets are nearly right.

Partial credit follows the partial boundary score of SemEval-2013 task 9.1: a triplet whose
relation is right and whose subject and object each equal or overlap the gold ones counts one half,
and each triplet is matched at most once.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Key", "find_mentions", "is_near", "is_overlapping", "match_partially"]

Key = tuple[str, str, str]
"""(subject, relation, object)."""


def find_mentions(text: str, name: str) -> list[tuple[int, int]]:
    """Half-open character ranges of every place where `name` stands in `text`.

    Example:
        >>> find_mentions("南京市长江大桥", "长江")
        [(3, 5)]
        >>> find_mentions("哈哈哈", "哈哈")
        [(0, 2), (1, 3)]
    """
    mentions = []
    start = text.find(name) if name else -1
    while start >= 0:
        mentions.append((start, start + len(name)))
        start = text.find(name, start + 1)
    return mentions


def is_overlapping(text: str, first: str, second: str) -> bool:
    """Whether some mention of one name shares a character with some mention of the other.

    Example:
        >>> is_overlapping("他毕业于北京大学", "北京", "北京大学")
        True
        >>> is_overlapping("北京的大学", "北京", "大学")
        False
    """
    if first in second:
        return bool(first) and second in text
    if second in first:
        return bool(second) and first in text
    if set(first).isdisjoint(second):
        return False
    others = find_mentions(text, second)
    return any(
        start < other_end and other_start < end
        for start, end in find_mentions(text, first)
        for other_start, other_end in others
    )


def is_near(text: str, gold: Key, predicted: Key) -> bool:
    """Whether the relation is the same and both entities are the same or overlap in the text."""
    return (
        gold[1] == predicted[1]
        and (gold[0] == predicted[0] or is_overlapping(text, gold[0], predicted[0]))
        and (gold[2] == predicted[2] or is_overlapping(text, gold[2], predicted[2]))
    )


def match_partially(
    text: str, gold: Sequence[Key], predicted: Sequence[Key]
) -> list[tuple[int, int]]:
    """(gold index, predicted index) of a largest one-to-one matching of near triplets.

    Args:
        text: The text they come from.
        gold: Gold triplets without an exact match.
        predicted: Predicted triplets without an exact match.
    """
    if len(gold) == len(predicted) == 1:
        return [(0, 0)] if is_near(text, gold[0], predicted[0]) else []
    relations = {key[1] for key in gold}
    neighbours = {
        index: [number for number, key in enumerate(gold) if is_near(text, key, candidate)]
        for index, candidate in enumerate(predicted)
        if candidate[1] in relations
    }
    owner: dict[int, int] = {}
    for index, choices in neighbours.items():
        if choices:
            _assign(index, neighbours, owner=owner)
    return sorted(owner.items())


def _assign(index: int, neighbours: dict[int, list[int]], *, owner: dict[int, int]) -> None:
    """Give a predicted triplet a gold one, moving earlier ones along a shortest augmenting path.

    Nothing changes when there is no such path.
    """
    reached_from: dict[int, int] = {}
    queue = [index]
    for candidate in queue:
        for number in neighbours[candidate]:
            if number in reached_from:
                continue
            reached_from[number] = candidate
            if number in owner:
                queue.append(owner[number])
                continue
            given = {predicted: gold for gold, predicted in owner.items()}
            free: int | None = number
            while free is not None:
                owner[free] = reached_from[free]
                free = given.get(reached_from[free])
            return
