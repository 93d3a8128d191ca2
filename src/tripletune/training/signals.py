"""SIGTERM and Ctrl-C while training: save first, then leave.

The first signal is a request: the step in progress is finished, a checkpoint is written, and then
`KeyboardInterrupt` leaves the training. During an evaluation, which may be long and changes no
state, it takes effect at once. A second signal leaves at once, without saving.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["EvaluationInterrupted", "StopRequest"]

logger = logging.getLogger("tripletune")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EvaluationInterrupted(BaseException):
    """Leaves an evaluation that a signal interrupts; like `KeyboardInterrupt`, no `Exception`."""


class StopRequest:
    """Whether the run was asked to stop, and by which signal.

    Attributes:
        signal_name: `SIGTERM` or `SIGINT` once asked, else None.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._interruptible = False

    def __bool__(self) -> bool:
        return self.signal_name is not None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Takes the two signals inside `with`; afterwards they do what they did before.

        Outside the main thread signals cannot be taken: there nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, a signal raises `EvaluationInterrupted`; so does one that came before."""
        if self:
            raise EvaluationInterrupted
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        if self:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        if self._interruptible:
            self._interruptible = False
            raise EvaluationInterrupted
