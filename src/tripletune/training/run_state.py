"""What a checkpoint says of its run besides what the Trainer keeps: `run_state.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tripletune.errors import AdapterError

__all__ = ["RUN_STATE_FILE", "read_run_state"]

RUN_STATE_FILE = "run_state.json"


def read_run_state(path: Path) -> dict[str, Any]:
    """The run's state, every field of its kind.

    Raises:
        AdapterError: a field is missing or of another kind.
    """
    kinds: dict[str, type | tuple[type, ...]] = {
        "pending_evaluation": bool,
        "train_seconds": (int, float),
        "loss_since_log": (int, float),
        "last_logged_step": int,
        "skipped_steps": int,
        "bad_steps_in_a_row": int,
        "num_pieces": int,
        "batch_size": int,
    }
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: not readable ({error}); use another checkpoint") from error
    for name, kind in kinds.items():
        value = content.get(name) if isinstance(content, dict) else None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise AdapterError(f"{path}: {name} is {value!r}; use another checkpoint")
    return dict(content)
