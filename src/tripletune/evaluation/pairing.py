"""Which predicted row belongs to which gold row.

Rows are paired by `id` first; rows that are left over are paired by their text. Where an id or a
text repeats, the first on one side goes with the first on the other, and so on.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pairing", "pair_rows"]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Where the rows of two files meet.

    Every gold row has a place, numbered as in the gold file; predicted rows without a gold row
    follow behind, in their order.

    Attributes:
        predicted_places: (number of predicted rows,) int64, the place of each predicted row.
        num_places: Gold rows, and predicted rows without one.
        num_by_id: Rows paired by id.
        num_by_text: Rows paired by text.
        only_gold: Gold rows without a predicted row; they count as predicted empty.
        only_predicted: Predicted rows without a gold row; they count as having no gold triplet.
        differing_texts: Gold rows whose id was found beside another text.
    """

    predicted_places: NDArray[np.int64]
    num_places: int
    num_by_id: int
    num_by_text: int
    only_gold: tuple[int, ...]
    only_predicted: tuple[int, ...]
    differing_texts: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The numbers of rows paired, missing and differing."""
        return {
            "num_by_id": self.num_by_id,
            "num_by_text": self.num_by_text,
            "num_only_gold": len(self.only_gold),
            "num_only_predicted": len(self.only_predicted),
            "num_differing_texts": len(self.differing_texts),
        }


def pair_rows(
    gold_ids: Sequence[str | None],
    gold_texts: Sequence[str],
    *,
    predicted_ids: Sequence[str | None],
    predicted_texts: Sequence[str],
) -> Pairing:
    """The pairing of gold and predicted rows, by id, else by text, in order.

    Example:
        >>> pair_rows(
        ...     [None, None], ["甲", "乙"], predicted_ids=[None, None], predicted_texts=["乙", "丙"]
        ... ).only_gold
        (0,)
    """
    num_gold, num_predicted = len(gold_texts), len(predicted_texts)
    if gold_texts == predicted_texts and gold_ids == predicted_ids:
        num_by_id = num_gold - list(gold_ids).count(None)
        rows = np.arange(num_gold, dtype=np.int64)
        return Pairing(rows, num_gold, num_by_id, num_gold - num_by_id, (), (), ())
    places = np.full(num_predicted, -1, dtype=np.int64)
    by_id = _pair_keys(enumerate(gold_ids), enumerate(predicted_ids))
    for gold_row, predicted_row in by_id:
        places[predicted_row] = gold_row
    paired_gold = {gold_row for gold_row, _ in by_id}
    by_text = _pair_keys(
        ((row, text) for row, text in enumerate(gold_texts) if row not in paired_gold),
        ((row, text) for row, text in enumerate(predicted_texts) if places[row] < 0),
    )
    for gold_row, predicted_row in by_text:
        places[predicted_row] = gold_row
    paired_gold.update(gold_row for gold_row, _ in by_text)
    only_predicted = np.flatnonzero(places < 0)
    places[only_predicted] = num_gold + np.arange(len(only_predicted))
    return Pairing(
        predicted_places=places,
        num_places=num_gold + len(only_predicted),
        num_by_id=len(by_id),
        num_by_text=len(by_text),
        only_gold=tuple(row for row in range(num_gold) if row not in paired_gold),
        only_predicted=tuple(int(row) for row in only_predicted),
        differing_texts=tuple(
            gold_row
            for gold_row, predicted_row in by_id
            if gold_texts[gold_row] != predicted_texts[predicted_row]
        ),
    )


def _pair_keys(
    gold: Iterable[tuple[int, Hashable]], predicted: Iterable[tuple[int, Hashable]]
) -> list[tuple[int, int]]:
    """(gold row, predicted row) of equal keys, first with first; None equals nothing."""
    waiting: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    for row, key in predicted:
        if key is not None:
            waiting[key].append(row)
    pairs = []
    for row, key in gold:
        rows = waiting.get(key)
        if rows:
            pairs.append((row, rows.popleft()))
    return pairs
