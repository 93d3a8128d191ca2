from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tripletune.data.readers import load_examples
from tripletune.data.writers import (
    OUTPUT_FORMATS,
    OutputFormat,
    choose_output_format,
    open_output,
    write_examples,
)
from tripletune.errors import ConfigError, DataError, OutputError
from tripletune.schema import Example, Span, Triplet

FULL = Example(
    "甲位于乙",
    (
        Triplet(
            "甲",
            "位于",
            "乙",
            subject_type="企业",
            object_type="地点",
            object_slots=(("onDate", "2011年"),),
            subject_span=Span(0, 1),
            object_span=Span(3, 4),
            confidence=0.25,
        ),
    ),
    "x1",
)
EXAMPLES = [FULL, Example("无事")]
TEXT = st.text(alphabet="甲乙丙, ,(\\n)\n\r\u2028_无", min_size=1).filter(str.strip)
UNIQUE = st.lists(st.builds(Triplet, TEXT, TEXT, TEXT), max_size=3, unique_by=lambda t: t.key)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_complete_records_come_back_in_full(tmp_path: Path, name: str) -> None:
    assert write_examples(EXAMPLES, tmp_path / name) == 2
    back = load_examples(tmp_path / name)
    assert [example.to_json() for example in back] == [example.to_json() for example in EXAMPLES]


@example(examples=[Example("\\", (Triplet("\\", ",)(", ","),))])  # reads like two triplets
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=st.lists(st.builds(Example, TEXT, UNIQUE.map(tuple)), min_size=1, max_size=3))
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_texts_and_triplets_come_back_from_every_format(
    tmp_path: Path, output_format: OutputFormat, examples: list[Example]
) -> None:
    path = tmp_path / "out"
    write_examples(examples, path, output_format=output_format)
    assert load_examples(path) == examples


def test_instruction_and_chat_records_are_what_trainers_read(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    question, answer = "抽取三元组：", "(甲, 位于, 乙)"
    write_examples([FULL], path, output_format="instruction", instruction=question)
    expected: object = {"instruction": question, "input": "甲位于乙", "output": answer}
    assert json.loads(path.read_text("utf-8")) == expected
    write_examples([FULL], path, output_format="messages", instruction=question)
    assert json.loads(path.read_text("utf-8")) == {
        "id": "x1",
        "messages": [
            {"role": "user", "content": "抽取三元组：\n甲位于乙"},
            {"role": "assistant", "content": answer},
        ],
    }
    write_examples([Example("无事")], path, output_format="sharegpt", instruction=question)
    assert json.loads(path.read_text("utf-8")) == {
        "conversations": [
            {"from": "human", "value": "抽取三元组：\n无事"},
            {"from": "gpt", "value": "无"},
        ]
    }


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old", encoding="utf-8")

    def fail() -> Iterator[Example]:
        yield FULL
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        write_examples(fail(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert path.read_text("utf-8") == "old"


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"file.*cannot be written"):
        write_examples(EXAMPLES, tmp_path / "file" / "out.jsonl")
    with pytest.raises(OutputError, match="cannot be written"), open_output(tmp_path) as file:
        file.write("x")


def test_format_follows_the_name_unless_it_is_given() -> None:
    assert choose_output_format(Path("a.parquet"), None) == "parquet"
    assert choose_output_format(Path("a.json"), None) == "canonical"
    assert choose_output_format(Path("a.parquet"), "messages") == "messages"
    with pytest.raises(ConfigError, match="'xml' is unknown; accepted are canonical"):
        choose_output_format(Path("a"), "xml")
