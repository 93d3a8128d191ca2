from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tripletune.errors import ConfigError, DataError, OutputError
from tripletune.extraction.jobs import JobReport, run_job
from tripletune.schema import Extraction, Triplet

JOB = """
import sys, time
from pathlib import Path
from tripletune.extraction.jobs import run_job
from tripletune.schema import Extraction, Triplet

class Slow:
    def extract(self, texts, on_text):
        time.sleep(0.004)
        share = len(texts) / 10
        return [Extraction(t, (Triplet(t[:2], "是", t[-2:], confidence=share),)) for t in texts]

run_job(lambda worker: Slow(), input_path=Path(sys.argv[1]), output_path=Path(sys.argv[2]),
        settings={}, resume="resume" in sys.argv, chunk_size=7)
"""


class FakeExtractor:
    """Finds (first character, 在, last character); the size of its batch is the confidence."""

    def __init__(self, *, poison: str = "毒") -> None:
        self.poison = poison

    def extract(self, texts: Sequence[str], *, on_text: Any) -> list[Extraction]:
        if any(self.poison in text for text in texts):
            raise RuntimeError("the model broke")
        for _ in texts:
            on_text()
        return [
            Extraction(text, (Triplet(text[0], "在", text[-1], confidence=len(texts) / 100),))
            for text in texts
        ]


def make_fake(worker: int) -> FakeExtractor:
    return FakeExtractor()


def run(source: Path, target: Path, **changes: Any) -> JobReport:
    values: dict[str, Any] = {"settings": {"adapter": "a"}, "chunk_size": 4}
    return run_job(make_fake, input_path=source, output_path=target, **{**values, **changes})


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"甲{number}乙\n" for number in range(10)), encoding="utf-8")
    return path


def test_run_job_writes_a_line_for_each_record_in_order(source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "out.jsonl")
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["text"] for line in lines] == [f"甲{number}乙" for number in range(10)]
    assert lines[0]["triplets"] == [
        {"subject": "甲", "relation": "在", "object": "乙", "confidence": 0.04}
    ]
    assert report == JobReport(num_records=10, num_resumed=0, num_bad=0, num_triplets=10)


def test_run_job_reports_a_bad_record_in_its_place(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(
        '{"id": 7, "text": "甲一"}\n{"text": 3}\nno json\n"甲二"\n'.encode() + b'"\xff"\n{"a": 1}\n'
    )
    report = run(source, tmp_path / "out.jsonl")
    lines = read_lines(tmp_path / "out.jsonl")
    assert [(line.get("id"), line["text"]) for line in lines] == [
        ("7", "甲一"), (None, ""), (None, ""), (None, "甲二"), (None, ""), (None, ""),
    ]  # fmt: skip
    assert lines[1]["problems"] == [f"{source}:2: text 3 is not a string"]
    assert lines[2]["problems"][0].startswith(f"{source}:3: is not JSON: ")
    assert lines[4]["problems"] == [f"{source}:5: byte 1 of the line is not UTF-8"]
    assert lines[5]["problems"][0].startswith(f"{source}:6: has no field 'text'")
    assert report.num_bad == 4


def test_run_job_loses_only_the_text_on_which_the_model_fails(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("甲一\n甲二\n有毒\n甲三\n", encoding="utf-8")
    run(source, tmp_path / "out.jsonl")
    lines = read_lines(tmp_path / "out.jsonl")
    assert [len(line["triplets"]) for line in lines] == [1, 1, 0, 1]
    assert lines[2]["problems"] == ["failed: RuntimeError: the model broke"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_run_job_resumed_writes_what_an_uninterrupted_one_does(
    source: Path, tmp_path: Path, ending: str
) -> None:
    whole, broken = tmp_path / f"whole{ending}", tmp_path / f"broken{ending}"
    run(source, whole)

    def break_off(num_records: int, num_triplets: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, broken, on_progress=break_off)
    assert not broken.exists() or broken.read_bytes() != whole.read_bytes()
    report = run(source, broken, resume=True)
    assert report.num_resumed == 4
    assert broken.read_bytes() == whole.read_bytes()


def test_run_job_cuts_off_an_unfinished_line_and_goes_on_inside_a_chunk(
    source: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    run(source, whole)
    with pytest.raises(KeyboardInterrupt):
        run(source, broken, on_progress=_interrupt)
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    broken.write_bytes(b"".join(lines[:6]) + lines[6][:11])
    assert run(source, broken, resume=True).num_resumed == 6
    assert broken.read_bytes() == content


def _interrupt(num_records: int, num_triplets: int) -> None:
    raise KeyboardInterrupt


def test_run_job_killed_at_random_points_writes_the_same_bytes(tmp_path: Path) -> None:
    source, script = tmp_path / "in.txt", tmp_path / "job.py"
    source.write_text("".join(f"第{number}句话说甲乙\n" for number in range(400)), encoding="utf-8")
    script.write_text(JOB, encoding="utf-8")
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    subprocess.run([sys.executable, script, source, whole], check=True)
    chance = random.Random(11)
    num_kills = 0
    mode: list[str] = []
    while True:
        process = subprocess.Popen([sys.executable, script, source, killed, *mode])
        deadline = time.monotonic() + 20
        size = killed.stat().st_size if killed.exists() else 0
        goal = size + chance.randrange(1, whole.stat().st_size // 3)
        while process.poll() is None and time.monotonic() < deadline and num_kills < 5:
            if killed.exists() and killed.stat().st_size >= goal:
                break
        if num_kills >= 5 or process.poll() is not None:
            assert process.wait() == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_kills += 1
        mode = ["resume"]
    assert num_kills >= 2
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_run_job_whose_disk_is_full_says_so_and_can_be_resumed(tmp_path: Path, ending: str) -> None:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"甲{number * 'x'}乙\n" for number in range(200)), encoding="utf-8")
    whole, broken = tmp_path / f"whole{ending}", tmp_path / f"broken{ending}"
    run(source, whole, chunk_size=20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system lets no file grow beyond this: a few chunks of JSONL, a part of Parquet or so.
    size = 6000 if ending == ".jsonl" else 4700
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        with pytest.raises(OutputError, match=r"output: .*broken.* cannot be written .*--resume"):
            run(source, broken, chunk_size=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    report = run(source, broken, chunk_size=20, resume=True)
    assert 0 < report.num_resumed <= 200
    assert broken.read_bytes() == whole.read_bytes()


def test_run_job_refuses_to_resume_with_other_settings(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.jsonl", on_progress=_interrupt)
    with pytest.raises(ConfigError, match=r"adapter is 'b' now and was 'a'"):
        run(source, tmp_path / "out.jsonl", resume=True, settings={"adapter": "b"})


def test_run_job_refuses_to_resume_a_complete_output(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="the job is complete"):
        run(source, tmp_path / "out.jsonl", resume=True)


@pytest.mark.parametrize("changes", [{}, {"overwrite": True}, {"resume": True}])
def test_run_job_does_not_write_into_its_input(
    source: Path, tmp_path: Path, changes: dict[str, bool]
) -> None:
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=r"in\.txt' is one of the files read"):
        run(source, tmp_path / "in.txt", **changes)
    assert source.read_bytes() == before


def test_run_job_replaces_a_complete_output_when_it_is_said_so(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("other\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already"):
        run(source, target)
    assert target.read_text(encoding="utf-8") == "other\n"
    run(source, target, overwrite=True)
    assert len(read_lines(target)) == 10
    with pytest.raises(ConfigError, match="resume, overwrite: both are set"):
        run(source, target, overwrite=True, resume=True)


def test_run_job_refuses_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        run(tmp_path / "none.txt", tmp_path / "out.jsonl")


def test_records_are_told_of_before_their_chunk_is_written(source: Path, tmp_path: Path) -> None:
    events: list[int] = []
    run(
        source, tmp_path / "out.jsonl",
        on_text=lambda: events.append(0),
        on_progress=lambda num_records, _: events.append(num_records),
    )  # fmt: skip
    assert events == [0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0, 0, 2]


def test_each_record_is_told_of_once(tmp_path: Path) -> None:
    """Those that are blank or tried again, too."""
    source = tmp_path / "in.jsonl"
    texts = ["甲一乙", "毒二乙", "", "甲三乙", "甲四乙", "毒五乙"]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    for num_workers in (1, 2):
        events: list[int] = []
        run(
            source, tmp_path / f"{num_workers}.jsonl", num_workers=num_workers,
            on_text=lambda events=events: events.append(0),
            on_progress=lambda num_records, _, events=events: events.append(num_records),
        )  # fmt: skip
        assert events.count(0) == len(texts)
        assert [event for event in events if event] == [4, 2]
        assert events.index(4) >= 4


def test_records_of_a_chunk_that_was_broken_off_are_told_of_again(
    source: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(source, broken, on_progress=_interrupt)
    with broken.open("ab") as stream:
        stream.write(json.dumps({"text": "甲4乙", "triplets": []}).encode() + b"\n")
    events: list[int] = []
    run(
        source, broken, resume=True,
        on_text=lambda: events.append(0),
        on_progress=lambda num_records, _: events.append(num_records),
    )  # fmt: skip
    assert events == [4, 0, 0, 0, 0, 4, 0, 0, 2]


def test_resumed_job_goes_on_in_chunks_of_the_size_it_was_begun_with(
    source: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    run(source, whole, chunk_size=3)
    with pytest.raises(KeyboardInterrupt):
        run(source, broken, chunk_size=3, on_progress=_interrupt)
    written: list[int] = []
    run(
        source, broken, chunk_size=5, resume=True,
        on_progress=lambda num_records, _: written.append(num_records),
    )  # fmt: skip
    assert written == [3, 3, 3, 1]
    assert broken.read_bytes() == whole.read_bytes()


def test_run_job_refuses_a_chunk_size_of_zero(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0, 1; need at least 1"):
        run(source, tmp_path / "out.jsonl", chunk_size=0)


def test_run_job_with_two_workers_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "one.jsonl")
    run(source, tmp_path / "two.jsonl", num_workers=2)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
