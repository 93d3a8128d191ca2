from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tripletune.errors import ConfigError, OutputError
from tripletune.extraction.job_output import open_output, render_record
from tripletune.schema import Extraction, Span, Triplet

FOUND = Extraction(
    "甲在乙",
    (Triplet("甲", "在", "乙", subject_span=Span(0, 1), object_span=Span(2, 3), confidence=0.5),),
    id="7",
)


def test_render_record_escapes_what_utf8_cannot_hold() -> None:
    line = render_record(Extraction("甲\ud800"))
    assert line == b'{"text": "\\u7532\\ud800", "triplets": []}\n'


def test_open_output_writes_parquet_as_the_canonical_record(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    output = open_output(path, {}, resume=False)
    output.write([FOUND, Extraction("", problems=("bad",))])
    output.write([Extraction("丙")])
    output.finish()
    rows = pq.read_table(path).to_pylist()
    assert [row["text"] for row in rows] == ["甲在乙", "", "丙"]
    assert rows[0]["id"] == "7"
    assert rows[0]["triplets"][0] == {
        "subject": "甲",
        "relation": "在",
        "object": "乙",
        "subject_type": None,
        "object_type": None,
        "subject_span": [0, 1],
        "object_span": [2, 3],
        "confidence": 0.5,
    }
    assert rows[1]["problems"] == ["bad"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.parquet"]


def test_open_output_says_what_the_job_was_until_it_is_done(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out.jsonl", {"adapter": "a"}, resume=False)
    marker = tmp_path / "out.jsonl.job.json"
    assert json.loads(marker.read_text(encoding="utf-8")) == {"adapter": "a"}
    output.finish()
    output.close()
    assert not marker.exists()


def test_open_output_reports_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"out\.jsonl' cannot be written"):
        open_output(tmp_path / "file" / "out.jsonl", {}, resume=False)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize(
    ("is_finished", "message"),
    [
        (True, "is there already; name another"),
        (False, r"was not finished; go on with it \(--resume"),
    ],
)
def test_results_are_replaced_only_when_it_is_said_so(
    name: str, is_finished: bool, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    output = open_output(path, {}, resume=False)
    output.write([FOUND])
    if is_finished:
        output.finish()
    output.close()
    before = {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()}
    with pytest.raises(ConfigError, match=message):
        open_output(path, {}, resume=False)
    assert {entry: entry.read_bytes() for entry in before} == before
    replaced = open_output(path, {}, resume=False, overwrite=True)
    assert replaced.num_done == 0
    replaced.close()


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_job_that_has_written_nothing_is_begun_anew(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        open_output(tmp_path / name, {}, resume=False).close()


@pytest.mark.parametrize("name", ["out.csv", "out.TSV"])
def test_name_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would not be what its ending says"):
        open_output(tmp_path / name, {}, resume=False)
    assert not list(tmp_path.iterdir())
