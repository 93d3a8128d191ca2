"""Processes that are started here for one job; what they find comes in the order of the input."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from tripletune.errors import ResourceError

__all__ = ["map_in_order"]

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_CHUNKS_IN_FLIGHT = 2
_SECONDS_BETWEEN_LOOKS = 0.2


def map_in_order(
    make_worker: Callable[[int], Callable[[Chunk, Callable[[], None]], Result]],
    chunks: Iterable[Chunk],
    num_workers: int,
    on_text: Callable[[], None],
) -> Generator[Result, None, None]:
    """What workers make of each chunk, in order; few chunks are held at the same time.

    The processes end with the iteration, with an error of any of them and with this process,
    however that ends.

    Args:
        make_worker: Called in each process with its number from 0, when there is work for it;
            picklable. The worker is given chunks, and a function to call as each record is done.
        chunks: Picklable.
        num_workers: Processes to start.
        on_text: Called here, now and then, once for each record that was done meanwhile.

    Raises:
        ResourceError: a process was ended from outside.
        Exception: whatever a worker raised.
    """
    context = get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(num_workers):
        numbers.put(number)
    tally = _Tally(context.Value("Q"))
    waiting: deque[Future[Result]] = deque()

    def take_oldest() -> Result:
        oldest = waiting.popleft()
        while not wait([oldest], _SECONDS_BETWEEN_LOOKS).done:
            tally.tell(on_text)
        tally.tell(on_text)
        return oldest.result()

    others = set(active_children())
    pool = ProcessPoolExecutor(
        num_workers, context, initializer=_start, initargs=(make_worker, numbers, tally)
    )
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) >= num_workers * _CHUNKS_IN_FLIGHT:
                yield take_oldest()
        while waiting:
            yield take_oldest()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"workers: one of {num_workers} processes was ended from outside, most often because "
            "the machine's memory ran out; what was written stays: go on with --resume and fewer "
            "--workers"
        ) from error
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Tally:
    """How many records workers have done.

    Args:
        shared: A number in the memory of all processes.
    """

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self._num_told = 0

    def add(self) -> None:
        """Counts one more."""
        with self._shared.get_lock():
            self._shared.value += 1

    def tell(self, on_text: Callable[[], None]) -> None:
        """Calls `on_text` for each that was counted since the last time."""
        # Past the lock, which a worker that was killed may have held.
        num_done = self._shared.get_obj().value
        for _ in range(num_done - self._num_told):
            on_text()
        self._num_told = num_done


@dataclass(slots=True)
class _Process:
    """What a process of the pool knows.

    The worker is made with the first chunk: what fails then is raised where the chunk is waited
    for, while a process that fails at its start says nothing.
    """

    make_worker: Callable[[int], Callable[[Any, Callable[[], None]], Any]]
    number: int
    tally: _Tally
    worker: Callable[[Any, Callable[[], None]], Any] | None = None

    def work(self, chunk: Any) -> Any:
        """What the worker makes of a chunk."""
        if self.worker is None:
            self.worker = self.make_worker(self.number)
        return self.worker(chunk, self.tally.add)


_this_process: list[_Process] = []


def _start(make_worker: Any, numbers: Any, tally: _Tally) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _this_process[:] = [_Process(make_worker, numbers.get(), tally)]


def _end_with_parent() -> None:
    """A process that waits for chunks does not notice that nobody is left to send them."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(chunk: Any) -> Any:
    return _this_process[0].work(chunk)
