from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tripletune.errors import ConfigError
from tripletune.extraction.job_ranks import JobRanks, joined_ranks
from tripletune.extraction.jobs import run_job
from tripletune.schema import Extraction, Triplet


class Fake:
    """Finds (first character, 在, last character); dies at its third chunk when told to."""

    def __init__(self, worker: int) -> None:
        self.num_chunks = 0

    def extract(self, texts: Sequence[str], *, on_text: Any) -> list[Extraction]:
        self.num_chunks += 1
        if self.num_chunks == 3 and "die" in sys.argv:
            raise KeyboardInterrupt
        share = len(texts) / 100
        return [Extraction(t, (Triplet(t[0], "在", t[-1], confidence=share),)) for t in texts]


JOB = f"""
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from tripletune.errors import TripletuneError
from tripletune.extraction.jobs import run_job
from tripletune.schema import Extraction, Triplet

{inspect.getsource(Fake)}
try:
    source, target = sys.argv[1:3]
    report = run_job(
        Fake, input_path=None if source == "-" else Path(source), output_path=Path(target),
        settings=dict(), resume="resume" in sys.argv, chunk_size=4,
        on_progress=lambda *numbers: print("progress", *numbers),
    )
    print(report)
except TripletuneError as error:
    sys.exit(str(error))
"""


def start_ranks(
    folder: Path, source: object, target: Path, *words: str, size: int = 2, stdin: str = ""
) -> list[subprocess.CompletedProcess[str]]:
    """What each process of a job did, started with what torchrun tells its own."""
    script = folder / "job.py"
    script.write_text(JOB, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(source), str(target), *words],
            env={**environment, "RANK": str(rank), "WORLD_SIZE": str(size)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    done = []
    for process in processes:
        stdout, stderr = process.communicate(stdin, timeout=120)
        done.append(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    return done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"甲{number}乙\n" for number in range(30)), encoding="utf-8")
    return path


def test_one_process_agrees_with_itself() -> None:
    with joined_ranks() as ranks:
        assert (ranks.rank, ranks.size, ranks.is_first) == (0, 1, True)
        assert ranks.agree(lambda: 7) == 7
        assert ranks.gather("a") == ["a"]
    assert JobRanks().size == 1


def test_job_of_three_processes_from_standard_input_writes_the_bytes_of_one(
    source: Path, tmp_path: Path
) -> None:
    one, three = tmp_path / "one.jsonl", tmp_path / "three.jsonl"
    run_job(Fake, input_path=source, output_path=one, settings={}, chunk_size=4)
    done = start_ranks(tmp_path, "-", three, size=3, stdin=source.read_text(encoding="utf-8"))
    assert three.read_bytes() == one.read_bytes()
    report = "JobReport(num_records=30, num_resumed=0, num_bad=0, num_triplets=30)"
    # All know the result, and one of them tells of the progress.
    assert [one.stdout.count(report) for one in done] == [1, 1, 1]
    assert [one.stdout.count("progress") for one in done] == [8, 0, 0]


def test_job_killed_in_one_process_is_resumed_by_two_and_by_one(
    source: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    start_ranks(tmp_path, source, whole, size=1)
    killed = start_ranks(tmp_path, source, broken, "die", size=1)
    assert killed[0].returncode != 0
    assert len(broken.read_text(encoding="utf-8").splitlines()) == 8
    start_ranks(tmp_path, source, broken, "die", "resume")
    # Two more chunks of each of the two, of which the second pair was not yet written.
    assert len(broken.read_text(encoding="utf-8").splitlines()) in (16, 24)
    start_ranks(tmp_path, source, broken, "resume", size=1)
    assert broken.read_bytes() == whole.read_bytes()


def test_error_of_one_process_ends_all(tmp_path: Path) -> None:
    done = start_ranks(tmp_path, tmp_path / "none.txt", tmp_path / "out.jsonl")
    assert [one.returncode for one in done] == [1, 1]
    assert all("none.txt: no such file" in one.stderr for one in done)


def test_workers_beside_torchrun_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = JobRanks()
    ranks.size = 2
    monkeypatch.setattr("tripletune.extraction.jobs.joined_ranks", lambda: nullcontext(ranks))
    with pytest.raises(ConfigError, match="workers: 3 in each of the 2 processes"):
        run_job(Fake, input_path=source, output_path=tmp_path / "o", settings={}, num_workers=3)
    assert not (tmp_path / "o").exists()
