from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from tripletune.errors import OutputError
from tripletune.extraction.job_lock import OutputLock

HOLDER = """
import sys, time
from pathlib import Path
from tripletune.extraction.job_lock import OutputLock
lock = OutputLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_output_is_locked_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    lock = OutputLock(path)
    with pytest.raises(OutputError, match=r"out\.jsonl' is being written by another process"):
        OutputLock(path)
    lock.release()
    assert not list(path.parent.iterdir())
    OutputLock(path).release()


def test_outputs_of_one_folder_are_locked_one_by_one(tmp_path: Path) -> None:
    locks = [OutputLock(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    for lock in locks:
        lock.release()


def test_lock_ends_with_a_process_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="is being written by another process"):
            OutputLock(path)
        holder.kill()
        holder.wait()
    OutputLock(path).release()


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"out\.jsonl' cannot be written"):
        OutputLock(tmp_path / "file" / "out.jsonl")


def test_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, **limits: float) -> None:
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    OutputLock(tmp_path / "out.jsonl").release()
    assert "two jobs at once would not be noticed (no flock here)" in caplog.text
