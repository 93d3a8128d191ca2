from __future__ import annotations

import json
from pathlib import Path

import pytest

from tripletune.data.convert import convert_file
from tripletune.errors import ConfigError

LINES = [
    '{"text": "甲位于乙", "spo_list": [{"subject": "甲", "predicate": "位于", "object": "乙"}, '
    '{"subject": "甲", "predicate": "位于", "object": "乙"}]}',
    '{"text": "空", "spo_list": []}',
    '{"text": "坏',
    '{"text": "丙", "spo_list": [{"subject": "丙", "predicate": "r", "object": ""}]}',
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def test_everything_dropped_or_changed_is_counted_and_listed(source: Path) -> None:
    target = source.with_name("out.jsonl")
    report = convert_file(source, target)
    assert target.read_text("utf-8") == (
        '{"text": "甲位于乙", "triplets": '
        '[{"subject": "甲", "relation": "位于", "object": "乙"}]}\n'
        '{"text": "空", "triplets": []}\n'
    )
    record = json.loads(source.with_name("out.jsonl.report.json").read_text("utf-8"))
    assert record == report.to_record()
    assert record == {
        "input": str(source),
        "input_format": "spo_list",
        "output": str(target),
        "output_format": "canonical",
        "examples": 2,
        "triplets": 1,
        "examples_without_triplet": 1,
        "dropped_records": 2,
        "dropped_triplets": 1,
        "changed": 1,
        "reasons": {
            "changed": {"repeated_triplet": 1},
            "dropped record": {"broken_json": 1, "no_triplet_left": 1},
            "dropped triplet": {"empty_item": 1},
        },
        "tallies": {},
        "problems": str(target) + ".problems.jsonl",
    }
    listed = Path(record["problems"]).read_text("utf-8").splitlines()
    assert [(p["line"], p["reason"]) for p in map(json.loads, listed)] == [
        (1, "repeated_triplet"),
        (3, "broken_json"),
        (4, "empty_item"),
        (4, "no_triplet_left"),
    ]
    assert json.loads(listed[-1])["message"].endswith("it would teach that there are none")


def test_clean_input_leaves_no_list_of_problems(source: Path) -> None:
    source.write_text(LINES[1], encoding="utf-8")
    stale = source.with_name("out.jsonl.problems.jsonl")
    stale.write_text("old", encoding="utf-8")
    assert convert_file(source, source.with_name("out.jsonl")).problems_path is None
    assert not stale.exists()


def test_input_is_never_overwritten(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="is one of the files read"):
        convert_file(source, source)
    convert_file(source, source.with_name("out.jsonl"))
    assert source.read_bytes() == before


def test_format_can_be_named(source: Path) -> None:
    report = convert_file(source, source.with_name("o.jsonl"), input_format="canonical")
    assert (report.num_examples, report.count("dropped record")) == (0, 4)
