"""When two triplets of a text are the same, and how many are.

=============  ====================================================================================
rule           two triplets match when
=============  ====================================================================================
strict         subject, relation and object are equal character for character
duie           the official DuIE 2.0 rules: subject, object and every further object slot are equal
               in lower case with one enclosing pair of 《》 removed, aliases allowed
normalised     all three are equal after NFKC, without white space and quotation marks
partial        as strict, and a triplet whose entities overlap the gold ones counts one half
relation_only  the relation is equal; entities do not count
entity_pairs   subject and object are equal; the relation does not count
=============  ====================================================================================

Under every rule the triplets of a text are a set: what is equal counts once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tripletune.evaluation.aliases import Aliases, AliasKey, count_with_aliases
from tripletune.evaluation.columns import BoolArray, IntArray, pack_columns
from tripletune.evaluation.counts import Counts
from tripletune.evaluation.pairing import Pairing
from tripletune.evaluation.table import NameIndex, Slots, TripletTable

__all__ = [
    "RULES",
    "TextCounts",
    "TripletSet",
    "align_tables",
    "count_by_rule",
    "normalise_duie",
    "normalise_name",
]

RULES = ("strict", "duie", "normalised", "partial", "relation_only", "entity_pairs")
"""Names of the matching rules, in the order they are shown."""

_IGNORED = dict.fromkeys(map(ord, "\"'`´‘’‚‛“”„‟‹›«»「」『』〝〞〟"))


def normalise_duie(name: str) -> str:
    """The name as the official DuIE 2.0 scorer compares it.

    Example:
        >>> normalise_duie("《Java程序设计》")
        'java程序设计'
    """
    name = name.lower()
    if name.startswith("《") and name.endswith("》"):
        return name[1:-1]
    return name


def normalise_name(name: str) -> str:
    """The name in NFKC without white space and quotation marks; case and 《》 stay.

    A name that holds nothing else is only brought to NFKC.

    Example:
        >>> normalise_name("“ＩＢＭ” 中国")
        'IBM中国'
    """
    compatible = unicodedata.normalize("NFKC", name)
    if compatible.isalnum():
        return compatible
    return "".join(compatible.split()).translate(_IGNORED) or compatible


@dataclass(frozen=True, slots=True)
class TripletSet:
    """The distinct triplets of every text on both sides, sorted by text.

    Attributes:
        texts: (number of triplets,) the text of each triplet.
        subjects: (number of triplets,) name numbers.
        relations: (number of triplets,) name numbers.
        objects: (number of triplets,) name numbers.
        slots: (number of triplets,) slot numbers; 0 is no further slot.
        in_gold: (number of triplets,) whether it is a gold triplet.
        in_predicted: (number of triplets,) whether it was predicted.
        confidences: (number of triplets,) float64, NaN where unknown; None when all are.
        num_texts: How many texts there are.
        slot_values: The further object slots that each slot number stands for.
    """

    texts: IntArray
    subjects: IntArray
    relations: IntArray
    objects: IntArray
    slots: IntArray
    in_gold: BoolArray
    in_predicted: BoolArray
    confidences: NDArray[np.float64] | None
    num_texts: int
    slot_values: tuple[Slots, ...] = ((),)

    def select(self, columns: Sequence[IntArray]) -> TripletSet:
        """The set with its columns replaced, in which what has become equal is one.

        Args:
            columns: Texts, subjects, relations, objects, slots.
        """
        _, first, inverse = np.unique(pack_columns(columns), return_index=True, return_inverse=True)
        in_gold = np.zeros(len(first), dtype=np.bool_)
        in_gold[inverse[self.in_gold]] = True
        in_predicted = np.zeros(len(first), dtype=np.bool_)
        in_predicted[inverse[self.in_predicted]] = True
        confidences = None
        if self.confidences is not None:
            confidences = np.full(len(first), np.nan)
            np.fmax.at(confidences, inverse, self.confidences)
        texts, subjects, relations, objects, slots = (column[first] for column in columns)
        return TripletSet(
            texts,
            subjects,
            relations,
            objects,
            slots,
            in_gold=in_gold,
            in_predicted=in_predicted,
            confidences=confidences,
            num_texts=self.num_texts,
            slot_values=self.slot_values,
        )

    def without_slots(self) -> TripletSet:
        """The set in which triplets that differ only in further object slots are one."""
        if not self.slots.any():
            return self
        zeros = np.zeros_like(self.slots)
        return self.select((self.texts, self.subjects, self.relations, self.objects, zeros))

    def count(self) -> TextCounts:
        """How many triplets each text has on either side and on both."""
        both = self.in_gold & self.in_predicted
        return TextCounts(
            *(
                np.bincount(self.texts[mask], minlength=self.num_texts)
                for mask in (self.in_gold, self.in_predicted, both)
            )
        )


@dataclass(frozen=True, slots=True)
class TextCounts:
    """The counts of every text, each (number of texts,).

    Attributes:
        gold: Gold triplets.
        predicted: Predicted triplets.
        correct: Predicted triplets that are right; halves under the partial rule.
        found: Gold triplets found; None when the same as `correct`.
    """

    gold: IntArray
    predicted: IntArray
    correct: NDArray[np.int64] | NDArray[np.float64]
    found: IntArray | None = None

    def total(self, mask: BoolArray | None = None) -> Counts:
        """The sum over all texts, or over those that `mask` selects."""
        chosen = slice(None) if mask is None else mask
        return Counts(
            int(self.gold[chosen].sum()),
            int(self.predicted[chosen].sum()),
            _plain_number(self.correct[chosen].sum()),
            None if self.found is None else int(self.found[chosen].sum()),
        )


def align_tables(gold: TripletTable, predicted: TripletTable, pairing: Pairing) -> TripletSet:
    """The distinct triplets of two tables whose rows have been paired.

    A triplet that was predicted twice keeps the higher confidence.
    """
    slot_numbers: dict[Slots, int] = {(): 0}
    num_gold, num_predicted = len(gold.rows), len(predicted.rows)
    is_gold = np.arange(num_gold + num_predicted) < num_gold
    confidences = None
    if predicted.confidences is not None:
        confidences = np.concatenate([np.full(num_gold, np.nan), predicted.confidences])
    columns = (
        np.concatenate([gold.rows, pairing.predicted_places[predicted.rows]]),
        np.concatenate([gold.subjects, predicted.subjects]),
        np.concatenate([gold.relations, predicted.relations]),
        np.concatenate([gold.objects, predicted.objects]),
        np.concatenate([_number_slots(table, slot_numbers) for table in (gold, predicted)]),
    )
    everything = TripletSet(
        *columns,
        in_gold=is_gold,
        in_predicted=~is_gold,
        confidences=confidences,
        num_texts=pairing.num_places,
        slot_values=tuple(slot_numbers),
    )
    return everything.select(columns)


def count_by_rule(
    triplets: TripletSet, names: NameIndex, *, aliases: Aliases | None = None
) -> dict[str, TextCounts]:
    """The counts of every text under each rule but `partial`, which needs the texts themselves.

    Args:
        triplets: What `align_tables` made.
        names: The index its numbers come from.
        aliases: Aliases for the `duie` rule.
    """
    plain = triplets.without_slots()
    nothing = np.zeros_like(plain.texts)
    relations = (plain.texts, nothing, plain.relations, nothing, nothing)
    pairs = (plain.texts, plain.subjects, nothing, plain.objects, nothing)
    return {
        "strict": plain.count(),
        "duie": _count_duie(triplets, names, aliases=aliases or {}),
        "normalised": _count_normalised(plain, names),
        "relation_only": plain.select(relations).count(),
        "entity_pairs": plain.select(pairs).count(),
    }


def _count_normalised(plain: TripletSet, names: NameIndex) -> TextCounts:
    mapped = _map_names(names, normalise_name)
    return plain.select(
        (
            plain.texts,
            mapped[plain.subjects],
            mapped[plain.relations],
            mapped[plain.objects],
            plain.slots,
        )
    ).count()


def _count_duie(triplets: TripletSet, names: NameIndex, *, aliases: Aliases) -> TextCounts:
    mapped = _map_names(names, normalise_duie)
    slots = _map_slots(triplets.slot_values)[triplets.slots]
    counts = triplets.select(
        (
            triplets.texts,
            mapped[triplets.subjects],
            triplets.relations,
            mapped[triplets.objects],
            slots,
        )
    ).count()
    return _apply_aliases(counts, triplets, names=names, aliases=aliases) if aliases else counts


def _apply_aliases(
    counts: TextCounts, triplets: TripletSet, *, names: NameIndex, aliases: Aliases
) -> TextCounts:
    """The counts with the texts that mention a word of the alias file compared triplet by triplet.

    Where neither side of a comparison is such a word, aliases change nothing.
    """
    name_of = list(names)
    is_word = np.array([normalise_duie(name) in aliases for name in name_of], dtype=np.bool_)
    has_word = is_word[triplets.subjects] | is_word[triplets.objects]
    has_word |= np.array(
        [any(normalise_duie(value) in aliases for _, value in s) for s in triplets.slot_values],
        dtype=np.bool_,
    )[triplets.slots]
    found = np.array(counts.correct, dtype=np.int64)
    gold, predicted, correct = counts.gold.copy(), counts.predicted.copy(), found.copy()
    for text in np.unique(triplets.texts[has_word]):
        first, last = np.searchsorted(triplets.texts, (text, text + 1))
        sides: tuple[list[AliasKey], list[AliasKey]] = ([], [])
        for row in range(first, last):
            key = AliasKey(
                normalise_duie(name_of[triplets.subjects[row]]),
                name_of[triplets.relations[row]],
                frozenset(
                    (slot, normalise_duie(value))
                    for slot, value in (
                        ("@value", name_of[triplets.objects[row]]),
                        *triplets.slot_values[triplets.slots[row]],
                    )
                ),
            )
            if triplets.in_gold[row]:
                sides[0].append(key)
            if triplets.in_predicted[row]:
                sides[1].append(key)
        total = count_with_aliases(*sides, aliases)
        gold[text], predicted[text] = total.num_gold, total.num_predicted
        correct[text], found[text] = total.num_correct, total.found
    return TextCounts(gold, predicted, correct, found)


def _map_names(names: NameIndex, normalise: Callable[[str], str]) -> IntArray:
    """(number of names,) the number of each name's normal form; new forms get new numbers.

    A name that is its own normal form keeps its number, and no other number stands for that form.
    """
    mapped = np.arange(len(names), dtype=np.int64)
    forms: dict[str, int] = {}
    for name, number in names.items():
        form = normalise(name)
        if form != name:
            known = names.get(form)
            mapped[number] = (
                forms.setdefault(form, len(names) + len(forms)) if known is None else known
            )
    return mapped


def _map_slots(values: Sequence[Slots]) -> IntArray:
    numbers: dict[Slots, int] = {}
    normalised = [tuple((name, normalise_duie(value)) for name, value in s) for s in values]
    return np.array([numbers.setdefault(s, len(numbers)) for s in normalised], dtype=np.int64)


def _number_slots(table: TripletTable, numbers: dict[Slots, int]) -> IntArray:
    """(number of triplets,) equal numbers for equal slots in any order; 0 for none."""
    column = np.zeros(len(table.rows), dtype=np.int64)
    for row, slots in table.slots.items():
        column[row] = numbers.setdefault(tuple(sorted(slots)), len(numbers))
    return column


def _plain_number(value: np.number) -> int | float:
    number = float(value)
    return int(number) if number.is_integer() else number
