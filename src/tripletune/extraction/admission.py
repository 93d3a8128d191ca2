"""When the slots of finished rows are filled again: how many prompts it pays to read together.

Starting the kernels of a batch of prompts takes the host as long as several steps take the device,
however few the prompts are. Waiting for more of them leaves slots free meanwhile. Of N slots with
answers of L tokens N / L become free at each step; with a start of s steps, reading k prompts at a
time costs s / k steps a row, and the k / 2 slots that are free on average cost k L / 2 N² more.
The sum is least for k = N √(2 s / L).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

__all__ = ["Admission"]

_STARTING_STEPS = 5.0
"""28 blocks: 35 ms to start, where a step of 8 ms is replayed (ChatGLM-6B, H100)."""
_BUSY_TOKENS = 2048
"""Prompts of so many tokens keep the fastest GPUs busy until they are started."""
_LARGEST_SHARE, _SMALLEST_SHARE = 1 / 2, 1 / 8
_UNKNOWN_LENGTH = 32.0


class Admission:
    """Learns how long answers are; knows nothing of time, so that a run can be repeated.

    Args:
        num_slots: N.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._num_finished = 0
        self._num_tokens = 0

    def note_finished(self, num_tokens: int) -> None:
        """Takes note of an answer of so many tokens."""
        self._num_finished += 1
        self._num_tokens += num_tokens

    def count_wanted(self, longest_prompt: int, begun: Iterable[int]) -> int:
        """How many slots should be free before prompts are read into them, at least 1.

        Args:
            longest_prompt: Tokens of the next prompts.
            begun: Tokens of each answer that is not finished; a mean of the finished ones alone
                would be that of the short ones.
        """
        length = _UNKNOWN_LENGTH
        if self._num_finished:
            length = max(1.0, (self._num_tokens + sum(begun)) / self._num_finished)
        cheapest = self._num_slots * sqrt(2 * _STARTING_STEPS / length)
        busy = max(_BUSY_TOKENS / longest_prompt, _SMALLEST_SHARE * self._num_slots)
        return max(1, int(min(cheapest, busy, _LARGEST_SHARE * self._num_slots)))
