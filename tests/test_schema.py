from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune import schema
from tripletune.errors import DataError
from tripletune.schema import Example, Extraction, Span, Triplet

FULL = Triplet(
    "肖申克的救赎",
    "上映时间",
    "1994年",
    subject_type="影视作品",
    object_type="日期",
    object_slots=(("inArea", "美国"),),
    subject_span=Span(1, 7),
    object_span=Span(10, 15),
    confidence=0.75,
)
FULL_RECORD = {
    "subject": "肖申克的救赎",
    "relation": "上映时间",
    "object": "1994年",
    "subject_type": "影视作品",
    "object_type": "日期",
    "object_slots": {"inArea": "美国"},
    "subject_span": [1, 7],
    "object_span": [10, 15],
    "confidence": 0.75,
}
ITEMS = st.text(min_size=1).filter(lambda text: bool(text.strip()))
SPANS = st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda p: Span(p[0], p[0] + p[1]))
TRIPLETS = st.builds(
    Triplet,
    ITEMS,
    ITEMS,
    ITEMS,
    subject_type=st.text(max_size=4),
    object_type=st.text(max_size=4),
    object_slots=st.dictionaries(st.text(), st.text(), max_size=3).map(lambda d: tuple(d.items())),
    subject_span=st.none() | SPANS,
    object_span=st.none() | SPANS,
    confidence=st.none() | st.floats(0, 1),
)


def annotations(triplet: Triplet) -> dict:
    """Every field, those that equality leaves out included."""
    return dataclasses.asdict(triplet)


def test_all_is_sorted_and_there():
    assert schema.__all__ == sorted(schema.__all__)
    assert all(hasattr(schema, name) for name in schema.__all__)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2)])
def test_span_is_a_range(start, end):
    with pytest.raises(DataError, match=rf"span: \[{start}, {end}\) is not a range"):
        Span(start, end)


def test_span_is_half_open_and_ordered():
    span = Span(1, 3)
    assert "甲位于乙"[span.start : span.end] == "位于"
    assert sorted([Span(2, 3), Span(1, 4), Span(1, 2)]) == [Span(1, 2), Span(1, 4), Span(2, 3)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (("", "位于", "乙"), r"triplet subject: '' is empty"),
        (("甲", " \n", "乙"), r"triplet relation: ' \\n' is empty"),
        (("甲", "位于", "\u3000"), r"triplet object: '\\u3000' is empty"),
        (("甲", "位于", 5), r"triplet object: 5 is not a string"),
        ((None, "位于", "乙"), r"triplet subject: None is not a string"),
    ],
)
def test_triplet_needs_three_strings(items, message):
    with pytest.raises(DataError, match=message):
        Triplet(*items)


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan")])
def test_triplet_confidence_is_a_probability(confidence):
    with pytest.raises(DataError, match=rf"confidence: {confidence!r} is not between 0 and 1"):
        Triplet("甲", "位于", "乙", confidence=confidence)


def test_triplets_are_equal_by_their_three_items():
    plain = Triplet("肖申克的救赎", "上映时间", "1994年")
    assert plain == FULL
    assert {plain, FULL} == {plain}
    assert FULL.key == ("肖申克的救赎", "上映时间", "1994年")
    assert Triplet("甲", "位于", "乙") != Triplet("乙", "位于", "甲")
    assert Triplet("A", "位于", "乙") != Triplet("a", "位于", "乙")


def test_triplet_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.subject = "乙"


def test_triplet_record_holds_every_annotation():
    assert FULL.to_record() == FULL_RECORD
    assert annotations(Triplet.from_record(FULL_RECORD)) == annotations(FULL)


def test_triplet_record_leaves_out_what_is_not_known():
    record = {"subject": "甲", "relation": "位于", "object": "乙"}
    assert Triplet("甲", "位于", "乙").to_record() == record


def test_triplet_record_may_hold_other_keys():
    record = {"subject": "甲", "relation": "位于", "object": "乙", "source": "百科"}
    assert annotations(Triplet.from_record(record)) == annotations(Triplet("甲", "位于", "乙"))


@given(TRIPLETS)
def test_triplet_record_round_trip(triplet):
    record = json.loads(json.dumps(triplet.to_record()))
    assert annotations(Triplet.from_record(record)) == annotations(triplet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject_span": [3]}, r"subject_span: \[3\] is not \[start, end\]"),
        ({"object_span": [True, 4]}, r"object_span: \[True, 4\] is not"),
        ({"object_span": "12"}, r"object_span: '12' is not"),
        ({"object_span": [4, 4]}, r"span: \[4, 4\) is not a range"),
        ({"confidence": "high"}, r"confidence: 'high' is not a number"),
        ({"confidence": True}, r"confidence: True is not a number"),
        ({"object_slots": ["x"]}, r"object_slots: \['x'\] is not an object"),
        ({"object": ""}, r"triplet object: '' is empty"),
    ],
)
def test_triplet_record_says_what_is_wrong(change, message):
    with pytest.raises(DataError, match=message):
        Triplet.from_record({**FULL_RECORD, **change})


@pytest.mark.parametrize("name", ["subject", "relation", "object"])
def test_triplet_record_names_a_missing_field(name):
    record = {key: value for key, value in FULL_RECORD.items() if key != name}
    with pytest.raises(DataError, match=rf"field '{name}' is missing in "):
        Triplet.from_record(record)


def test_triplet_record_is_an_object():
    with pytest.raises(DataError, match=r"triplet: \['甲', '位于', '乙'\] is not an object"):
        Triplet.from_record(["甲", "位于", "乙"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "text: '' is empty"), (" \n", "text: ' .n' is empty"), (3, "text: 3 is not a string")],
)
def test_example_needs_a_text(text, message):
    with pytest.raises(DataError, match=message):
        Example(text)


def test_example_json_is_one_readable_line():
    example = Example("甲位于乙。\n丙。", (Triplet("甲", "位于", "乙"),), id="7")
    assert example.to_json() == (
        '{"id": "7", "text": "甲位于乙。\\n丙。", "triplets": '
        '[{"subject": "甲", "relation": "位于", "object": "乙"}]}'
    )


def test_example_without_triplets_is_legal():
    record = {"text": "今天天气不错。", "triplets": []}
    assert Example.from_record(record) == Example("今天天气不错。")
    assert Example("今天天气不错。").to_record() == record


@given(ITEMS, st.lists(TRIPLETS, max_size=3).map(tuple), st.none() | st.text())
def test_example_record_round_trip(text, triplets, identifier):
    example = Example(text, triplets, identifier)
    again = Example.from_record(json.loads(example.to_json()))
    assert dataclasses.asdict(again) == dataclasses.asdict(example)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("甲", "record: '甲' is not a JSON object"),
        ({"triplets": []}, "field 'text' is missing"),
        ({"text": "甲"}, "field 'triplets' is missing"),
        ({"text": "甲", "triplets": "甲,位于,乙"}, "triplets: '甲,位于,乙' is not a list"),
        ({"text": "甲", "triplets": {}}, "triplets: {} is not a list"),
        ({"text": "甲", "triplets": [3]}, "triplet: 3 is not an object"),
    ],
)
def test_example_record_says_what_is_wrong(record, message):
    with pytest.raises(DataError, match=message):
        Example.from_record(record)


def test_example_id_is_read_as_text():
    assert Example.from_record({"id": 5, "text": "甲", "triplets": []}).id == "5"


def test_extraction_record_is_a_canonical_example():
    extraction = Extraction("甲位于乙。", (FULL,), id="a", output="(…)")
    record = {"id": "a", "text": "甲位于乙。", "triplets": [FULL_RECORD]}
    assert extraction.to_record() == record
    assert json.loads(extraction.to_json()) == record
    assert Example.from_record(record) == Example("甲位于乙。", (FULL,), "a")


def test_extraction_record_lists_problems_when_there_are_any():
    assert Extraction("甲", problems=("x", "y")).to_record() == {
        "text": "甲",
        "triplets": [],
        "problems": ["x", "y"],
    }
