from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tripletune.errors import OutputError
from tripletune.training.lock import LOCK_FILE, RunLock, check_unlocked

HOLD = """
import sys, time
from pathlib import Path
from tripletune.training.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_run_is_refused_and_sees_the_owner(tmp_path, holder):
    message = rf"pid {holder.pid}, host .*, user .*, started 20.*give another --output_dir"
    with pytest.raises(OutputError, match=message), RunLock(tmp_path):
        pass
    with pytest.raises(OutputError, match=f"pid {holder.pid}"):
        check_unlocked(tmp_path)


def test_refused_run_leaves_the_owner_in_the_file(tmp_path, holder):
    before = (tmp_path / LOCK_FILE).read_text(encoding="utf-8")
    with pytest.raises(OutputError), RunLock(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).read_text(encoding="utf-8") == before


def test_lock_of_a_killed_process_is_taken_over_and_said(tmp_path, holder, caplog):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunLock(tmp_path):
        owner = json.loads((tmp_path / LOCK_FILE).read_text(encoding="utf-8"))
    assert owner["pid"] == os.getpid()
    (said,) = caplog.messages
    assert said.startswith("接管了已结束进程留下的锁")
    assert f"pid {holder.pid}" in said


def test_lock_is_free_again_afterwards(tmp_path, caplog):
    for _ in range(2):
        with RunLock(tmp_path):
            pass
    check_unlocked(tmp_path)
    assert (tmp_path / LOCK_FILE).read_bytes() == b""
    assert caplog.messages == []


def test_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="inside"), RunLock(tmp_path):
        raise ValueError("inside")
    check_unlocked(tmp_path)


def test_same_process_cannot_hold_a_folder_twice(tmp_path):
    with (
        RunLock(tmp_path),
        pytest.raises(OutputError, match=f"pid {os.getpid()}"),
        RunLock(tmp_path),
    ):
        pass


def test_folder_without_lock_is_free(tmp_path):
    check_unlocked(tmp_path)
    assert not (tmp_path / LOCK_FILE).exists()


def test_folder_that_cannot_be_written_is_named(tmp_path):
    message = r"lock '.*none/\.run\.lock' cannot be written \(No such file"
    with pytest.raises(OutputError, match=message), RunLock(tmp_path / "none"):
        pass


@pytest.mark.parametrize("content", [b"\xff\x00", b"[1]", b"{", b"{}", b"[" * 3000])
def test_rubbish_in_the_lock_file_is_taken_over(tmp_path: Path, content):
    (tmp_path / LOCK_FILE).write_bytes(content)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
