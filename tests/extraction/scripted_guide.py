"""A guide that tests of generation share."""

from __future__ import annotations

from typing import Any

import numpy as np


class ScriptedGuide:
    """Allows the given sets of tokens one after another."""

    is_finished = False

    def __init__(self, sets: list[list[int]]) -> None:
        self.sets = sets
        self.taken: list[int] = []

    def prepare(self) -> None:
        pass

    def allowed(self) -> Any:
        left = self.sets[len(self.taken)] if len(self.taken) < len(self.sets) else []
        return np.array(left, dtype=np.int64)

    def advance(self, token_id: int) -> None:
        self.taken.append(token_id)
