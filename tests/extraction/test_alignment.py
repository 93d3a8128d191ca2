from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.extraction.alignment import Alignment, align, iter_clusters, squeeze


def test_align_maps_each_written_character_to_its_cluster() -> None:
    assert align("重５㎏", squeeze) == Alignment(
        "重5kg",
        (0, 1, 2, 2),
        (1, 2, 3, 3),
        (True, True, True, False),
        (True, True, False, True),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301a", [(0, 2), (2, 3)]),
        ("ｶﾞ", [(0, 2)]),
        ("\u1100\u1161\u11a8나", [(0, 3), (3, 4)]),
        ("\u0301a", [(0, 1), (1, 2)]),
        ("", []),
    ],
)
def test_iter_clusters_keeps_marks_with_their_base(
    text: str, expected: list[tuple[int, int]]
) -> None:
    assert list(iter_clusters(text)) == expected


def test_align_drops_clusters_that_are_rewritten_to_nothing() -> None:
    assert align("a b", squeeze).starts == (0, 2)


@given(st.text())
def test_iter_clusters_covers_the_text(text: str) -> None:
    assert "".join(text[start:end] for start, end in iter_clusters(text)) == text
