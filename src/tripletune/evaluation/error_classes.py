"""What kind of mistake each wrong or missed triplet is.

Every wrong prediction gets the first class that fits, in this order, and so does every piece of
output that could not be read:

======================  ===========================================================================
class                   a predicted triplet that is not among the gold ones and
======================  ===========================================================================
unparseable             (no triplet: output that could not be read)
relation_not_in_schema  has a relation that the schema does not list; needs a schema
swapped_direction       is a gold triplet with subject and object exchanged
wrong_relation          has subject and object of a gold triplet, with another relation
entity_not_in_text      has a subject or object that does not stand in the text
boundary_too_long       overlaps a gold triplet of the same relation and covers all of it
boundary_too_short      overlaps a gold triplet of the same relation and leaves part of it out
spurious                fits nothing above
======================  ===========================================================================

A wrong prediction that explains a missed gold triplet is linked to it; each gold triplet is linked
at most once. Gold triplets that nothing explains are `missed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tripletune.evaluation.spans import Key, is_near

__all__ = ["ERROR_CLASSES", "ErrorSummary", "TripletError", "classify_errors"]

ERROR_CLASSES = (
    "unparseable",
    "relation_not_in_schema",
    "swapped_direction",
    "wrong_relation",
    "entity_not_in_text",
    "boundary_too_long",
    "boundary_too_short",
    "spurious",
    "missed",
)
"""Names of the error classes, in the order in which they are tried."""

_SAME_PAIR = ("relation_not_in_schema", "wrong_relation")


class TripletError(NamedTuple):
    """One mistake.

    Attributes:
        error_class: One of `ERROR_CLASSES`.
        predicted: The wrong triplet; None when it is missing or could not be read.
        gold: The missed triplet that the prediction stands for, when there is one.
        output: The piece of output that could not be read.
    """

    error_class: str
    predicted: Key | None = None
    gold: Key | None = None
    output: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The class with what was predicted, what was missed, what could not be read."""
        record: dict[str, Any] = {"error_class": self.error_class}
        for name, key in (("predicted", self.predicted), ("gold", self.gold)):
            if key is not None:
                record[name] = dict(zip(("subject", "relation", "object"), key, strict=True))
        if self.output:
            record["output"] = self.output
        return record


def classify_errors(
    text: str,
    *,
    gold: Sequence[Key],
    missed: Sequence[Key],
    wrong: Sequence[Key],
    near: Sequence[tuple[int, int]] = (),
    schema: Collection[str] | None = None,
) -> list[TripletError]:
    """The mistakes in one text: one for each wrong triplet, then one for each left missed.

    Args:
        text: The text.
        gold: All gold triplets.
        missed: The gold triplets that were not predicted.
        wrong: The predicted triplets that are not gold.
        near: (index in `missed`, index in `wrong`) as `spans.match_partially` gives it.
        schema: The relations that are allowed, when that is to be checked.
    """
    if not wrong:
        return [TripletError("missed", gold=key) for key in missed]
    pairs: dict[tuple[str, str], list[Key]] = {}
    for key in gold:
        pairs.setdefault((key[0], key[2]), []).append(key)
    partners = {index: missed[number] for number, index in near}
    unexplained = dict.fromkeys(missed)
    errors: list[TripletError] = []
    boundary: list[tuple[int, Key]] = []
    for index, key in enumerate(wrong):
        error_class = _find_pair_class(key, text=text, pairs=pairs, schema=schema)
        if not error_class:
            boundary.append((index, key))
            continue
        link = _find_link(error_class, key, pairs=pairs, unexplained=unexplained)
        errors.append(TripletError(error_class, key, link))
    for index, key in boundary:
        partner = partners.get(index)
        if partner is None or partner not in unexplained:
            partner = next((other for other in unexplained if is_near(text, other, key)), None)
        if partner is not None:
            del unexplained[partner]
        like = partner or next((other for other in gold if is_near(text, other, key)), None)
        errors.append(TripletError(_find_boundary_class(key, like), key, partner))
    errors += [TripletError("missed", gold=key) for key in unexplained]
    return errors


def _find_pair_class(
    key: Key,
    *,
    text: str,
    pairs: dict[tuple[str, str], list[Key]],
    schema: Collection[str] | None,
) -> str:
    """The class of a wrong triplet, or "" when only its boundaries can tell."""
    subject, relation, object_ = key
    if schema is not None and relation not in schema:
        return "relation_not_in_schema"
    if (object_, relation, subject) in pairs.get((object_, subject), ()):
        return "swapped_direction"
    if (subject, object_) in pairs:
        return "wrong_relation"
    if subject not in text or object_ not in text:
        return "entity_not_in_text"
    return ""


def _find_link(
    error_class: str,
    key: Key,
    *,
    pairs: dict[tuple[str, str], list[Key]],
    unexplained: dict[Key, None],
) -> Key | None:
    """The missed triplet that a wrong one stands for, which is then explained."""
    if error_class == "swapped_direction":
        candidates = [(key[2], key[1], key[0])]
    elif error_class in _SAME_PAIR:
        candidates = pairs.get((key[0], key[2]), [])
    else:
        candidates = []
    link = next((candidate for candidate in candidates if candidate in unexplained), None)
    if link is not None:
        del unexplained[link]
    return link


def _find_boundary_class(key: Key, like: Key | None) -> str:
    if like is None:
        return "spurious"
    is_covering = like[0] in key[0] and like[2] in key[2]
    return "boundary_too_long" if is_covering else "boundary_too_short"


@dataclass(slots=True)
class ErrorSummary:
    """Mistakes counted by class, with examples of each.

    Attributes:
        max_examples: How many examples of a class are kept, each from another text.
        num_wrong: Wrong predictions, or unreadable pieces of output, by class.
        num_missed: Missed gold triplets by the class of the mistake that explains them.
        examples: (text, mistake) by class, the first ones met.
        confusion: How often a gold relation was predicted as another one, for the same pair.
    """

    max_examples: int = 5
    num_wrong: Counter[str] = field(default_factory=Counter)
    num_missed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, TripletError]]] = field(default_factory=dict)
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, text: str, errors: Sequence[TripletError]) -> None:
        """Count the mistakes of one text."""
        for error in errors:
            name, predicted, gold, _ = error
            if name != "missed":
                self.num_wrong[name] += 1
            if gold is not None:
                self.num_missed[name] += 1
                if predicted is not None and name in _SAME_PAIR:
                    self.confusion[gold[1], predicted[1]] += 1
            kept = self.examples.setdefault(name, [])
            if len(kept) < self.max_examples and (not kept or kept[-1][0] is not text):
                kept.append((text, error))

    def to_dict(self) -> dict[str, Any]:
        """Numbers and examples by class, in the order of `ERROR_CLASSES`, and the confusions."""
        return {
            "classes": {
                name: {
                    "num_wrong": self.num_wrong[name],
                    "num_missed": self.num_missed[name],
                    "examples": [
                        {"text": text, **error.to_dict()}
                        for text, error in self.examples.get(name, [])
                    ],
                }
                for name in ERROR_CLASSES
            },
            "confusion": [
                {"gold": gold, "predicted": predicted, "count": count}
                for (gold, predicted), count in self.confusion.most_common()
            ],
        }
