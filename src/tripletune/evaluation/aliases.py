"""Aliases as the official DuIE 2.0 scorer uses them.

An alias file has one word a line followed by its aliases, tab-separated. A subject or object value
matches a word that has it as an alias. The relation is neither transitive nor, for subjects,
symmetric, so texts with aliases are compared triplet by triplet.

Source: the rules of the official DuIE 2.0 scorer as published with the LIC 2021 baseline; the code
is our own. A word that is listed twice keeps the aliases of both lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tripletune.errors import DataError
from tripletune.evaluation.counts import Counts

__all__ = ["AliasKey", "Aliases", "count_with_aliases", "read_aliases"]

Aliases = Mapping[str, frozenset[str]]
"""The aliases of each word, all in lower case."""


class AliasKey(NamedTuple):
    """A triplet in DuIE form: names in lower case, every object slot with its value."""

    subject: str
    relation: str
    slots: frozenset[tuple[str, str]]


def read_aliases(path: str | Path) -> dict[str, frozenset[str]]:
    """The aliases in a tab-separated file, in lower case.

    Raises:
        DataError: the file cannot be read, or a line has a word without an alias.
    """
    aliases: dict[str, frozenset[str]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"alias file cannot be read: {error}", path=path) from error
    for number, line in enumerate(lines, 1):
        words = [word.strip().lower() for word in line.split("\t")]
        if not any(words):
            continue
        if len(words) < 2 or not all(words):
            raise DataError(
                f"{line!r} is not a word and its aliases, separated by tabs", path=path, line=number
            )
        aliases[words[0]] = aliases.get(words[0], frozenset()) | frozenset(words[1:])
    return aliases


def count_with_aliases(
    gold: Sequence[AliasKey], predicted: Sequence[AliasKey], aliases: Aliases
) -> Counts:
    """The counts of one text; alias-duplicates are merged, the first one stays."""
    distinct_gold = _merge_duplicates(gold, aliases)
    distinct_predicted = _merge_duplicates(predicted, aliases)
    return Counts(
        num_gold=len(distinct_gold),
        num_predicted=len(distinct_predicted),
        num_correct=sum(_is_in(key, distinct_gold, aliases) for key in distinct_predicted),
        num_found=sum(_is_in(key, predicted, aliases) for key in distinct_gold),
    )


def _merge_duplicates(keys: Sequence[AliasKey], aliases: Aliases) -> list[AliasKey]:
    kept: list[AliasKey] = []
    for key in keys:
        if not _is_in(key, kept, aliases):
            kept.append(key)
    return kept


def _is_in(target: AliasKey, keys: Sequence[AliasKey], aliases: Aliases) -> bool:
    subjects = aliases.get(target.subject, frozenset()) | {target.subject}
    return any(
        key.relation == target.relation
        and key.subject in subjects
        and _has_equal_slots(dict(key.slots), dict(target.slots), aliases)
        for key in keys
    )


def _has_equal_slots(first: Mapping[str, str], second: Mapping[str, str], aliases: Aliases) -> bool:
    """Whether both have the same slots and each value is an alias of the other, both ways."""
    if first.keys() != second.keys():
        return False
    return all(
        value == second[name]
        or (
            second[name] in aliases.get(value, frozenset())
            and value in aliases.get(second[name], frozenset())
        )
        for name, value in first.items()
    )
