from __future__ import annotations

from math import exp
from typing import Any

import pytest

from tests.extraction.builders import build_sentencepiece
from tripletune.data.relation_schema import Relation
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.generate import Generated
from tripletune.extraction.reading import read_constrained, read_free
from tripletune.extraction.vocabulary import build_vocabulary
from tripletune.schema import Extraction, Span


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_vocabulary(build_sentencepiece(tmp_path_factory.mktemp("vocabulary")))


def read_held(vocabulary: Any, text: str, output: str) -> Extraction:
    constraint = Constraint(vocabulary, [Relation("位于", (("公司", "城市"),)), Relation("在")])
    guide = constraint.build_guide(text, max_triplets=9, max_tokens=99)
    ids = vocabulary.encode(output)
    for token in ids:
        guide.advance(token)
    return read_constrained(
        text, Generated(tuple(ids), (-0.01,) * len(ids), True), guide, constraint
    )


def test_read_constrained_gives_items_as_they_stand_in_the_text(vocabulary: Any) -> None:
    text = "乙，Ａ公司，位于㎏市"
    found = read_held(vocabulary, text, "(A公司, 位于, kg市)")
    (triplet,) = found.triplets
    assert triplet.key == ("Ａ公司", "位于", "㎏市")
    assert (triplet.subject_span, triplet.object_span) == (Span(2, 5), Span(8, 10))
    assert (triplet.subject_type, triplet.object_type) == ("公司", "城市")
    assert triplet.confidence == pytest.approx(
        exp(-0.01 * len(vocabulary.encode("(A公司, 位于, kg市)")))
    )
    assert found.output == "(A公司, 位于, kg市)"
    assert found.problems == ()


def test_read_constrained_takes_the_closest_occurrences(vocabulary: Any) -> None:
    (triplet,) = read_held(vocabulary, "甲说乙。甲在丙。", "(甲, 在, 丙)").triplets
    assert (triplet.subject_span, triplet.object_span) == (Span(4, 5), Span(6, 7))


def test_read_constrained_restores_escaped_items(vocabulary: Any) -> None:
    (triplet,) = read_held(vocabulary, "a, b在\n甲", r"(a\, b, 在, 在\n甲)").triplets
    assert (triplet.subject, triplet.object) == ("a, b", "在\n甲")


def test_read_constrained_of_the_empty_target_has_no_triplet(vocabulary: Any) -> None:
    found = read_held(vocabulary, "甲", "无")
    assert (found.output, found.triplets, found.problems) == ("无", (), ())


def test_read_free_grounds_what_it_can_and_reports_the_rest(vocabulary: Any) -> None:
    output = "(甲, 在, 丁)\n(甲, 在)"
    ids = tuple(vocabulary.encode(output))
    found = read_free("甲在乙", output, Generated(ids, (-0.5,) * len(ids), False), vocabulary)
    (triplet,) = found.triplets
    assert triplet.key == ("甲", "在", "丁")
    assert (triplet.subject_span, triplet.object_span) == (Span(0, 1), None)
    num_first = len(vocabulary.encode("(甲, 在, 丁)"))
    assert triplet.confidence == pytest.approx(exp(-0.5 * num_first))
    assert found.problems == (
        "'(甲, 在)' has 2 items, not 3",
        f"the output did not end within {len(ids)} tokens",
    )


def test_read_free_without_vocabulary_has_no_confidence() -> None:
    found = read_free("甲在乙", "(甲, 在, 乙)", Generated((1,), (-0.5,), True), None)
    assert found.triplets[0].confidence is None
