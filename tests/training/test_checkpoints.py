from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripletune.errors import AdapterError, OutputError
from tripletune.training import checkpoints
from tripletune.training.checkpoints import (
    begin_checkpoint,
    compute_sha256,
    discard_checkpoint,
    find_newest_checkpoint,
    finish_checkpoint,
    list_checkpoints,
    next_run_number,
    prune_checkpoints,
    tidy_checkpoints,
    verify_checkpoint,
)


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def write(folder: Path, step: int, *, content: str = "weights", run_number: int = 1) -> Path:
    staging = begin_checkpoint(folder, step)
    (staging / "adapter_model.safetensors").write_text(content, encoding="utf-8")
    (staging / "sub").mkdir()
    (staging / "sub" / "state.json").write_text("{}", encoding="utf-8")
    finish_checkpoint(staging, step=step, run_number=run_number, examples_per_step=16)
    return folder / f"checkpoint-{step}"


def read(path: Path) -> str:
    return (path / "adapter_model.safetensors").read_text(encoding="utf-8")


def test_checkpoint_says_what_it_is(tmp_path):
    path = write(tmp_path, 50, run_number=3)
    checkpoint = verify_checkpoint(path)
    assert (checkpoint.path, checkpoint.step) == (path, 50)
    assert (checkpoint.run_number, checkpoint.examples_per_step) == (3, 16)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-50"]


def test_manifest_has_size_and_sum_of_every_file(tmp_path):
    manifest = json.loads((write(tmp_path, 50) / "manifest.json").read_text())
    assert manifest["files"] == {
        "adapter_model.safetensors": {
            "bytes": 7,
            "sha256": hashlib.sha256(b"weights").hexdigest(),
        },
        "sub/state.json": {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
    }


def test_checkpoint_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    done: list[str] = []
    monkeypatch.setattr(checkpoints, "_flush", lambda path: done.append(path.name))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to)))
    write(tmp_path, 5)
    assert done == [
        "adapter_model.safetensors",
        "state.json",
        "manifest.json",
        ".checkpoint-5.saving",
        "rename",
        tmp_path.name,
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "sub" / "state.json").unlink(), "sub/state.json is missing"),
        (
            lambda p: (p / "adapter_model.safetensors").write_text("weight"),
            "6 bytes, written were 7",
        ),
        (lambda p: (p / "adapter_model.safetensors").write_text("Weights"), "was changed"),
        (lambda p: (p / "model.safetensors").touch(), "model.safetensors is not listed"),
        (lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda p: (p / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda p: (p / "manifest.json").write_text("[" * 100_000), "manifest.json cannot be read"),
        (lambda p: (p / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be read"),
        (lambda p: (p / "manifest.json").write_text(" " * (1 << 20) + "{}"), "above 1048576 bytes"),
        (lambda p: (p / "manifest.json").write_text('{"version": 9}'), "not of version 1"),
    ],
)
def test_verify_names_what_is_damaged(tmp_path, damage, message):
    path = write(tmp_path, 50)
    damage(path)
    with pytest.raises(AdapterError, match=message) as caught:
        verify_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "c:\\x", "..", "a//b"])
def test_verify_refuses_names_outside_the_folder(tmp_path, name):
    path = write(tmp_path, 50)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AdapterError, match="is no name inside the folder"):
        verify_checkpoint(path)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None, 1 << 60])
def test_verify_refuses_numbers_that_are_no_counts(tmp_path, value):
    path = write(tmp_path, 50)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "step": value}))
    with pytest.raises(AdapterError, match=r"step is .*, not a count"):
        verify_checkpoint(path)


def test_verify_refuses_links(tmp_path):
    path = write(tmp_path / "out", 50)
    (tmp_path / "secret").write_text("weights")
    (path / "adapter_model.safetensors").unlink()
    (path / "adapter_model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(AdapterError, match="is a link or device"):
        verify_checkpoint(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found(tmp_path, data):
    path = write(tmp_path / "out", 50)
    file = data.draw(st.sampled_from([p for p in sorted(path.rglob("*")) if p.is_file()]))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        checkpoint = verify_checkpoint(path)
    except AdapterError:
        return
    # Only the manifest's own numbers can change unnoticed; the files are those it names.
    assert file.name == "manifest.json"
    assert read(checkpoint.path) == "weights"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    manifest=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "step", "run_number", "examples_per_step", "files", "bytes"]
                )
                | st.text(max_size=5),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_manifest_is_refused_with_our_error_or_describes_the_files(tmp_path, manifest):
    path = tmp_path / "checkpoint-1"
    path.mkdir(exist_ok=True)
    (path / "a").write_text("x")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AdapterError, match="is damaged"):
        verify_checkpoint(path)


def test_list_orders_by_start_and_step_not_by_time(tmp_path):
    for step, run_number in [(150, 1), (50, 2), (100, 2)]:
        write(tmp_path, step, run_number=run_number)
    for age, step in enumerate([100, 50, 150]):
        os.utime(tmp_path / f"checkpoint-{step}", (age, age))
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-7").mkdir()
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["checkpoint-7", "checkpoint-150", "checkpoint-50", "checkpoint-100"]


def test_newest_is_the_last_sound_one_and_the_damaged_are_named(tmp_path, caplog):
    for step in (50, 100, 150):
        write(tmp_path, step)
    (tmp_path / "checkpoint-150" / "sub" / "state.json").unlink()
    newest = find_newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 100
    (said,) = caplog.messages
    assert said.startswith("检查点已损坏，改用前一个")
    assert "checkpoint-150" in said


def test_newest_is_none_in_an_empty_folder(tmp_path):
    assert find_newest_checkpoint(tmp_path) is None
    assert next_run_number(tmp_path) == 1


def test_run_number_is_above_all_there_are(tmp_path):
    write(tmp_path, 50, run_number=4)
    write(tmp_path, 10, run_number=2)
    assert next_run_number(tmp_path) == 5


def test_prune_keeps_the_newest_and_the_protected(tmp_path):
    paths = [write(tmp_path, step) for step in (10, 20, 30, 40)]
    removed = prune_checkpoints(tmp_path, keep=2, protected=[paths[1]])
    assert removed == [paths[0], paths[2]]
    assert list_checkpoints(tmp_path) == [paths[1], paths[3]]


def test_prune_never_deletes_the_newest(tmp_path):
    paths = [write(tmp_path, step) for step in (10, 20)]
    prune_checkpoints(tmp_path, keep=1, protected=[paths[0]])
    assert list_checkpoints(tmp_path) == paths


def test_discard_removes_what_was_begun(tmp_path):
    staging = begin_checkpoint(tmp_path, 5)
    (staging / "part").touch()
    discard_checkpoint(staging)
    assert list(tmp_path.iterdir()) == []


def test_begin_says_that_the_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\).*make room"):
        begin_checkpoint(tmp_path / "file", 5)


def test_full_disk_leaves_the_checkpoint_of_that_name_as_it_was(tmp_path, monkeypatch):
    write(tmp_path, 5, content="old")

    def full(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    staging = begin_checkpoint(tmp_path, 5)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"No space left on device\); \d+ MiB are free"):
        finish_checkpoint(staging, step=5, run_number=2, examples_per_step=16)
    assert verify_checkpoint(tmp_path / "checkpoint-5").run_number == 1


def operations(folder: Path, monkeypatch, *, die_at: int) -> int:
    """Replaces checkpoint 5 and drops checkpoint 3, dying at the n-th change; how many."""
    count = 0

    def counted(original: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == die_at:
                raise Killed
            return original(*args, **kwargs)

        return operation

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "write_text", counted(Path.write_text))
        patch.setattr(checkpoints, "_flush", counted(checkpoints._flush))
        patch.setattr(os, "unlink", counted(os.unlink))
        patch.setattr(os, "rmdir", counted(os.rmdir))
        write(folder, 5, content="new", run_number=2)
        prune_checkpoints(folder, keep=1)
    return count


def test_killed_at_any_operation_of_saving_a_sound_checkpoint_remains(tmp_path, monkeypatch):
    def prepare(name: str) -> Path:
        folder = tmp_path / name
        write(folder, 3, content="three")
        write(folder, 5, content="old")
        return folder

    total = operations(prepare("whole"), monkeypatch, die_at=0)
    assert total > 12
    seen = set()
    for number in range(1, total + 1):
        folder = prepare(f"killed-{number}")
        with pytest.raises(Killed):
            operations(folder, monkeypatch, die_at=number)
        tidy_checkpoints(folder)
        newest = find_newest_checkpoint(folder)
        assert newest is not None
        assert newest.step == 5
        seen.add(read(newest.path))
        for path in list_checkpoints(folder):
            verify_checkpoint(path)
        assert not list(folder.glob(".*"))
    assert seen == {"old", "new"}


def test_tidy_gives_a_whole_checkpoint_its_name(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tripletune")
    path = write(tmp_path, 5, content="new")
    path.rename(tmp_path / ".checkpoint-5.saving")
    old = write(tmp_path, 6, content="old")
    old.rename(tmp_path / ".checkpoint-5.replaced")
    tidy_checkpoints(tmp_path)
    assert read(tmp_path / "checkpoint-5") == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]
    assert caplog.messages == [f"完成了中断的检查点保存: {path}"]


def test_tidy_leaves_other_names_alone(tmp_path):
    for name in (".checkpoint-5.kept", "checkpoint-5", "checkpoint-saving"):
        (tmp_path / name).mkdir()
    tidy_checkpoints(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_sum_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert compute_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    shutil.rmtree(tmp_path)
