from __future__ import annotations

import gc
import weakref
from math import exp
from typing import Any

import pytest

from tests.extraction.builders import build_byte_tokenizer, build_sentencepiece
from tripletune.data.relation_schema import Relation
from tripletune.errors import ConfigError
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.guide import TripletGuide, WrittenLine, score_lines
from tripletune.extraction.vocabulary import build_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_sentencepiece(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def constraint(tokenizer: Any) -> Constraint:
    return Constraint(build_vocabulary(tokenizer), [Relation("位于"), Relation("总部地点")])


def write(constraint: Constraint, output: str, **limits: int) -> TripletGuide:
    """A guide that has taken the output in, each token checked to be allowed."""
    guide = constraint.build_guide(
        "甲公司位于乙市", **{"max_triplets": 9, "max_tokens": 99, **limits}
    )
    for token in constraint.vocabulary.encode(output):
        assert token in guide.allowed()
        guide.advance(token)
    return guide


def test_guide_gives_the_complete_lines(constraint: Constraint) -> None:
    guide = write(constraint, "(甲公司, 位于, 乙市)\n(乙市, 位于, 甲)")
    assert guide.closed_lines == ["(甲公司, 位于, 乙市)"]
    assert guide.find_lines() == (["(甲公司, 位于, 乙市)", "(乙市, 位于, 甲)"], "")


def test_guide_drops_a_line_that_is_not_complete(constraint: Constraint) -> None:
    guide = write(constraint, "(甲公司, 位于, 乙市)\n(乙市, 位于")
    assert guide.find_lines() == (
        ["(甲公司, 位于, 乙市)"],
        "the output did not end within 99 tokens",
    )


def test_guide_ends_an_output_that_repeats_itself(constraint: Constraint) -> None:
    guide = write(constraint, "(甲公司, 位于, 乙市)\n(甲公司, 位于, 乙市)\n")
    assert guide.allowed().tolist() == []
    assert guide.find_lines() == (
        ["(甲公司, 位于, 乙市)"],
        "'(甲公司, 位于, 乙市)' was repeated; the output was ended there",
    )


def test_guide_counts_a_repetition_at_the_very_end_once(constraint: Constraint) -> None:
    guide = write(constraint, "(甲公司, 位于, 乙市)\n(甲公司, 位于, 乙市)")
    assert guide.find_lines()[0] == ["(甲公司, 位于, 乙市)"]


@pytest.mark.parametrize(("name", "extra"), [("max_triplets", None), ("max_tokens", 6)])
def test_guide_begins_no_triplet_beyond_the_limits(
    constraint: Constraint, name: str, extra: int | None
) -> None:
    output = "(甲公司, 位于, 乙市)"
    num_written = len(constraint.vocabulary.encode(output))
    guide = write(constraint, output, **{name: 1 if extra is None else num_written + extra})
    assert guide.allowed().tolist() == [constraint.vocabulary.end_token_id]


def test_guide_reads_the_empty_target(constraint: Constraint) -> None:
    assert write(constraint, "无").find_lines() == ([], "")


def test_guide_refuses_a_token_that_is_not_allowed(constraint: Constraint) -> None:
    guide = constraint.build_guide("甲", max_triplets=9, max_tokens=9)
    (token,) = constraint.vocabulary.encode("a")[-1:]
    with pytest.raises(ConfigError, match="not among the allowed tokens"):
        guide.advance(token)


def test_score_lines_multiplies_the_tokens_of_each_line() -> None:
    vocabulary = build_vocabulary(build_byte_tokenizer())
    ids = [token for part in "(甲)\n(乙)" for token in vocabulary.encode(part)]
    count = len(vocabulary.encode("甲")) + 2
    scores = [-0.1] * count + [-0.3] * (len(ids) - count)
    assert score_lines(vocabulary, ids, [*scores, -9.0]) == [
        WrittenLine("(甲)", pytest.approx(exp(-0.1 * count))),
        WrittenLine("(乙)", pytest.approx(exp(-0.3 * (len(ids) - count)))),
    ]


def test_score_lines_counts_a_token_across_lines_for_both() -> None:
    class Vocabulary:
        symbols = ("(a", ")\n(", "b)")
        hides_first_blank = False

    lines = score_lines(Vocabulary(), [0, 1, 2], [-1.0, -2.0, -4.0])  # type: ignore[arg-type]
    assert lines == [WrittenLine("(a)", exp(-3.0)), WrittenLine("(b)", exp(-6.0))]


def test_release_frees_the_states_without_the_collector(constraint: Constraint) -> None:
    guide = write(constraint, "(甲公司, 位于, 乙市)\n(乙市, 位于, 甲)")
    guide.prepare()
    states = weakref.ref(guide._automaton)
    gc.disable()
    try:
        guide.release()
        assert states() is None
    finally:
        gc.enable()


def test_prepare_leaves_what_is_allowed_as_it_is(constraint: Constraint) -> None:
    allowed = []
    for is_prepared in (True, False):
        guide = constraint.build_guide("甲公司位于乙市", max_triplets=9, max_tokens=99)
        if is_prepared:
            guide.prepare()
        for token in constraint.vocabulary.encode("(甲公司, 位于, 乙市)"):
            allowed.append((is_prepared, sorted(guide.allowed().tolist())))
            guide.advance(token)
    half = len(allowed) // 2
    assert [ids for _, ids in allowed[:half]] == [ids for _, ids in allowed[half:]]
