from __future__ import annotations

import json

import pytest

from tripletune.errors import AdapterError
from tripletune.training.run_state import read_run_state

STATE = {
    "pending_evaluation": False,
    "train_seconds": 1.5,
    "loss_since_log": 2.0,
    "last_logged_step": 3,
    "skipped_steps": 0,
    "bad_steps_in_a_row": 0,
    "num_pieces": 1,
    "batch_size": 4,
}


def test_run_state_is_read(tmp_path):
    path = tmp_path / "run_state.json"
    path.write_text(json.dumps(STATE), encoding="utf-8")
    assert read_run_state(path) == STATE


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"pending_evaluation": 1}', "[" * 100_000),
        json.dumps({**STATE, "batch_size": True}),
    ],
)
def test_run_state_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "run_state.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(AdapterError, match=r"run_state\.json: .*use another checkpoint"):
        read_run_state(path)
