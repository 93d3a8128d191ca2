from __future__ import annotations

import pytest

from tripletune.extraction.votes import combine_votes
from tripletune.schema import Extraction, Span, Triplet

TEXT = "甲和乙在丙"


def make(subject, start, relation="位于", item="丙", place=4):
    return Triplet(
        subject, relation, item, confidence=0.1,
        subject_span=Span(start, start + 1), object_span=Span(place, place + 1),
    )  # fmt: skip


FIRST, SECOND = make("甲", 0), make("乙", 2)
VOTES = [
    Extraction(TEXT, (SECOND, FIRST), output="x"),
    Extraction(TEXT, (FIRST,), output="y", problems=("no end",)),
    Extraction(TEXT, (FIRST, SECOND), output="z", problems=("no end",)),
    Extraction(TEXT, (make("甲", 0, "邻近", "乙", 2),), output="w", problems=("repeated",)),
]


def test_confidence_is_the_share_of_the_votes():
    combined = combine_votes(VOTES, share=0.0)
    assert [(*t.key, t.confidence) for t in combined.triplets] == [
        ("甲", "邻近", "乙", 0.25),
        ("甲", "位于", "丙", 0.75),
        ("乙", "位于", "丙", 0.5),
    ]
    assert combined.triplets[2].subject_span == Span(2, 3)
    assert combined.output == "(甲, 邻近, 乙)\n(甲, 位于, 丙)\n(乙, 位于, 丙)"
    assert combined.problems == ("no end", "repeated")


@pytest.mark.parametrize(("share", "expected"), [(0.5, [0.75, 0.5]), (0.51, [0.75]), (0.8, [])])
def test_a_share_of_the_votes_keeps_a_triplet(share, expected):
    combined = combine_votes(VOTES, share=share)
    assert [triplet.confidence for triplet in combined.triplets] == expected
    assert combined.text == TEXT


def test_exactly_the_share_is_enough_however_it_is_rounded():
    # 0.28 * 25 is 7.000000000000001.
    votes = [Extraction(TEXT, (FIRST,))] * 7 + [Extraction(TEXT)] * 18
    assert [t.confidence for t in combine_votes(votes, share=0.28).triplets] == [0.28]


def test_a_triplet_that_an_output_repeats_has_one_vote_of_it():
    combined = combine_votes([Extraction(TEXT, (FIRST, FIRST)), Extraction(TEXT)])
    assert [triplet.confidence for triplet in combined.triplets] == [0.5]


def test_nothing_agreed_on_is_the_empty_output():
    combined = combine_votes([Extraction(TEXT, (FIRST,)), Extraction(TEXT), Extraction(TEXT)])
    assert (combined.triplets, combined.output) == ((), "无")
