from __future__ import annotations

import pytest

from tripletune.evaluation.pairing import pair_rows

NO_ID = None


def pair(gold, predicted):
    """Pair lists of (id, text)."""
    return pair_rows(
        [row[0] for row in gold],
        [row[1] for row in gold],
        predicted_ids=[row[0] for row in predicted],
        predicted_texts=[row[1] for row in predicted],
    )


@pytest.mark.parametrize(
    ("gold", "predicted", "places"),
    [
        # By text, in another order.
        ([(NO_ID, "甲"), (NO_ID, "乙")], [(NO_ID, "乙"), (NO_ID, "甲")], [1, 0]),
        # A repeated text: first with first, second with second.
        ([(NO_ID, "甲"), (NO_ID, "乙"), (NO_ID, "甲")], [(NO_ID, "甲"), (NO_ID, "甲")], [0, 2]),
        # By id, although the same text comes first.
        ([("1", "甲"), ("2", "甲")], [("2", "甲"), ("1", "甲")], [1, 0]),
        # A repeated id: in order.
        ([("1", "甲"), ("1", "乙")], [("1", "甲"), ("1", "乙")], [0, 1]),
        # Ids on one side only: by text.
        ([("1", "甲"), ("2", "乙")], [(NO_ID, "乙"), (NO_ID, "甲")], [1, 0]),
        # Ids of two different makings: by text.
        ([("a", "甲"), ("b", "乙")], [("0", "乙"), ("1", "甲")], [1, 0]),
        # A row with a matching id leaves the other row of the same text to the one without.
        ([("1", "甲"), (NO_ID, "甲")], [(NO_ID, "甲"), ("1", "甲")], [1, 0]),
        # A text only predicted stands behind the gold rows.
        ([(NO_ID, "甲")], [(NO_ID, "乙"), (NO_ID, "甲"), (NO_ID, "甲")], [1, 0, 2]),
        ([], [], []),
    ],
)
def test_pair_rows_places_each_predicted_row(gold, predicted, places):
    assert pair(gold, predicted).predicted_places.tolist() == places


def test_pair_rows_reports_what_is_missing():
    pairing = pair(
        [("1", "甲"), ("2", "乙"), (NO_ID, "丙")],
        [("1", "甲"), (NO_ID, "丙"), (NO_ID, "丁")],
    )
    assert pairing.only_gold == (1,)
    assert pairing.only_predicted == (2,)
    assert pairing.num_places == 4
    assert pairing.to_dict() == {
        "num_by_id": 1,
        "num_by_text": 1,
        "num_only_gold": 1,
        "num_only_predicted": 1,
        "num_differing_texts": 0,
    }


def test_pair_rows_reports_an_id_with_another_text():
    pairing = pair([("1", "甲"), ("2", "乙")], [("1", "甲"), ("2", "乙。")])
    assert pairing.differing_texts == (1,)
    assert pairing.only_gold == ()
