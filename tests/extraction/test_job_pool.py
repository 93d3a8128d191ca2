from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import psutil
import pytest

from tripletune.errors import ModelError, ResourceError
from tripletune.extraction.job_pool import map_in_order

OnText = Callable[[], None]

JOB = """
import signal, sys, time
from tripletune.extraction.job_pool import map_in_order

def make_sleeper(number):
    print("started", flush=True)

    def sleep(chunk, on_text):
        time.sleep(chunk)
        print("done", flush=True)

    return sleep

if __name__ == "__main__":
    # As from a terminal; what a shell starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        list(map_in_order(make_sleeper, [3.0, 60.0], 2, lambda: None))
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def make_squarer(number: int) -> Callable[[int, OnText], int]:
    """Takes longer for the first chunks than for those that come after."""

    def square(chunk: int, on_text: OnText) -> int:
        time.sleep(0.05 * (5 - chunk))
        on_text()
        return chunk**2

    return square


def make_sleeper(number: int) -> Callable[[float, OnText], float]:
    def sleep(chunk: float, on_text: OnText) -> float:
        time.sleep(chunk)
        return chunk

    return sleep


def make_nothing(number: int) -> Callable[[Any, OnText], Any]:
    raise ModelError(f"model: number {number} has none")


def make_dying(number: int) -> Callable[[Any, OnText], Any]:
    return lambda chunk, on_text: os._exit(9)


def make_speaker(number: int) -> Callable[[int, OnText], int]:
    """Is done with a record of its chunk every tenth of a second."""

    def speak(chunk: int, on_text: OnText) -> int:
        for _ in range(chunk):
            time.sleep(0.1)
            on_text()
        return chunk

    return speak


def ignore() -> None:
    pass


def test_results_come_in_the_order_of_the_chunks() -> None:
    assert list(map_in_order(make_squarer, range(5), 2, ignore)) == [0, 1, 4, 9, 16]


def test_four_chunks_are_held_for_two_workers() -> None:
    taken = 0

    def chunks() -> Iterator[float]:
        nonlocal taken
        for _ in range(9):
            taken += 1
            yield 0.01

    seen = [taken for _ in map_in_order(make_sleeper, chunks(), 2, ignore)]
    assert seen == [4, 5, 6, 7, 8, 9, 9, 9, 9]


def test_records_are_told_of_while_their_chunk_is_worked_on() -> None:
    moments: list[float] = []
    assert list(map_in_order(make_speaker, [10], 2, lambda: moments.append(time.monotonic())))
    assert len(moments) == 10
    assert moments[-1] - moments[0] > 0.5


def test_error_in_making_a_worker_is_raised_as_it_is() -> None:
    with pytest.raises(ModelError, match=r"model: number [01] has none"):
        list(map_in_order(make_nothing, range(4), 2, ignore))
    assert not active_children()


def test_process_that_is_ended_from_outside_names_the_remedy() -> None:
    with pytest.raises(ResourceError, match=r"one of 2 processes was ended .* --resume and fewer"):
        list(map_in_order(make_dying, range(4), 2, ignore))


def test_processes_end_when_the_rest_is_not_wanted() -> None:
    begun = time.monotonic()
    with closing(map_in_order(make_sleeper, [0.0, 60.0, 60.0, 60.0], 2, ignore)) as results:
        assert next(results) == 0.0
    assert time.monotonic() - begun < 30
    assert not active_children()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process in a session of its own, and its two workers: one at work, one without."""
    script = tmp_path / "job.py"
    script.write_text(JOB, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        heard = [running.stdout.readline() for _ in range(3)]
        assert heard == ["started\n", "started\n", "done\n"]
        time.sleep(0.5)  # until the one without waits for more
        children = psutil.Process(running.pid).children()
        yield running, children
        running.kill()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
def test_interrupt_from_the_keyboard_ends_all_with_one_voice(
    job: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    running, children = job
    os.killpg(running.pid, signal.SIGINT)
    _, shown = running.communicate(timeout=30)
    assert shown == "interrupted\n"
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_workers_end_with_the_process_that_started_them(
    job: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    running, children = job
    running.kill()
    assert not psutil.wait_procs(children, timeout=10)[1]
