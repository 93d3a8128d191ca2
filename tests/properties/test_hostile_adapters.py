"""The small files of an adapter folder, of any content, are read or refused with a named error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripletune.cli.runs import _print_table, compare_records, read_records, summarise
from tripletune.data.schema_files import load_schema
from tripletune.errors import TripletuneError
from tripletune.extraction.calibration import load_calibrator
from tripletune.extraction.loading import load_adapter
from tripletune.training.run_record import find_changed_data
from tripletune.training.run_state import RUN_STATE_FILE, read_run_state

NUM_INPUTS = int(os.environ.get("TRIPLETUNE_FUZZ_INPUTS", "100"))
RUN = {
    "format": 1,
    "earlier_starts": [],
    "status": "finished", "command": ["train"], "started": "2026-01-01T00:00:00", "seed": 1,
    "settings": {"model_name": "m", "seed": 1}, "data": {"a": {"path": "a", "sha256": "0"}},
    "result": {"metrics": {"eval_f1": 0.5}, "steps": 3, "train_seconds": 1.5},
    "versions": {"torch": "2"}, "git": {"commit": "c", "changed": False}, "hardware": {"gpu": None},
}  # fmt: skip
CALIBRATION = {
    "method": "isotonic", "points": [[0.1, 0.2], [0.9, 0.8]], "num_triplets": 3,
    "error_before": 0.2, "error_after": 0.1,
}  # fmt: skip
STATE = {
    "pending_evaluation": False, "train_seconds": 1.0, "loss_since_log": 0.5, "last_logged_step": 2,
    "skipped_steps": 0, "bad_steps_in_a_row": 0, "num_pieces": 1, "batch_size": 2,
}  # fmt: skip
SCHEMA = {"relations": [{"name": "位于", "subject_types": ["机构"], "object_types": ["地点"]}]}
READING = {"window_chars": 200, "relations_per_prompt": 8}

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=6)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def change(value: Any, data: st.DataObject) -> Any:
    """The value with some part of it replaced by any other."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value)
    elif isinstance(value, list):
        inner = list(range(len(value)))
    if not inner or data.draw(st.integers(0, 3)) == 0:
        return data.draw(JSON)
    place = data.draw(st.sampled_from(inner))
    copy = value.copy()
    copy[place] = change(value[place], data)
    return copy


def draw_content(valid: Any, data: st.DataObject) -> bytes:
    """A valid record with a change or with a changed byte, or any bytes."""
    kind = data.draw(st.integers(0, 5))
    if kind == 0:
        return data.draw(st.binary(max_size=60))
    content = bytearray(json.dumps(change(valid, data)).encode())
    if kind == 1 and content:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    return bytes(content)


def show_run(folder: Path) -> None:
    records, damaged = read_records([folder])
    assert len(records) + len(damaged) == 1
    for path, record in records:
        _print_table(["字段"] * 9, [summarise(path, record)])
        find_changed_data(record)
    changed = [{**record, "result": {}} for _, record in records]
    _print_table(["字段"] * 3, compare_records([*(record for _, record in records), *changed]))


def load_adapter_without_model(folder: Path) -> None:
    load_adapter(folder, base_model="/there/is/no/model")


READERS = {
    "given schema": (SCHEMA, lambda folder: load_schema(folder / "given schema")),
    "schema.json": (SCHEMA, load_adapter_without_model),
    "extraction.json": (READING, load_adapter_without_model),
    "calibration.json": (CALIBRATION, load_calibrator),
    "run.json": (RUN, show_run),
    RUN_STATE_FILE: (STATE, lambda folder: read_run_state(folder / RUN_STATE_FILE)),
}


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=NUM_INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_content_is_read_or_refused_with_our_error(tmp_path, name, data):
    valid, read = READERS[name]
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / name).write_bytes(draw_content(valid, data))
    message = "read"
    try:
        read(tmp_path)
    except TripletuneError as error:
        message = str(error)
    assert message
