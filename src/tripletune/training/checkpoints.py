"""Checkpoint folders on disk: written whole or not at all, checked before they are used.

A checkpoint is written under a temporary name, every file is flushed to the disk, a manifest with
size and SHA-256 of each file is added, and only then is the folder renamed:

```
.checkpoint-50.saving/      being written; ignored, and removed at the next start
checkpoint-50/              whole: every file is listed in manifest.json with its checksum
.checkpoint-50.replaced/    what had that name before, until the rename is on the disk
.checkpoint-50.removed/     being deleted
```

Killed at any moment, a folder called `checkpoint-N` is either complete or detected as damaged.
Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletune.errors import AdapterError, OutputError

__all__ = [
    "MANIFEST_FILE",
    "Checkpoint",
    "begin_checkpoint",
    "discard_checkpoint",
    "find_newest_checkpoint",
    "finish_checkpoint",
    "list_checkpoints",
    "next_run_number",
    "prune_checkpoints",
    "tidy_checkpoints",
    "verify_checkpoint",
]

logger = logging.getLogger("tripletune")

MANIFEST_FILE = "manifest.json"
_VERSION = 1
_MAX_MANIFEST_BYTES = 1 << 20
_BLOCK = 1 << 20
_NAME = re.compile(r"checkpoint-(\d{1,12})")
_TEMPORARY = re.compile(r"\.(checkpoint-\d{1,12})\.(saving|replaced|removed)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every file is as it was written.

    Attributes:
        path: Its folder.
        step: Optimizer steps done.
        run_number: Which start of a training in this output folder wrote it, from 1.
        examples_per_step: Examples that each optimizer step learns from, over all ranks.
    """

    path: Path
    step: int
    run_number: int
    examples_per_step: int


def begin_checkpoint(output_dir: Path, step: int) -> Path:
    """An empty folder to write the checkpoint of this step into.

    Raises:
        OutputError: it cannot be made.
    """
    staging = output_dir / f".checkpoint-{step}.saving"
    try:
        _remove_tree(staging)
        staging.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(staging, error) from error
    return staging


def finish_checkpoint(
    staging: Path, *, step: int, run_number: int, examples_per_step: int
) -> Checkpoint:
    """Flushes what was written into `staging`, adds the manifest and gives it its name.

    Raises:
        OutputError: the disk is full or the folder cannot be written. What had the name before is
            still there, under that name or to be found again by `tidy_checkpoints`.
    """
    final = staging.parent / f"checkpoint-{step}"
    try:
        files = {}
        for path in sorted(p for p in staging.rglob("*") if not p.is_dir()):
            _flush(path)
            files[path.relative_to(staging).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": compute_sha256(path),
            }
        manifest = {
            "version": _VERSION,
            "step": step,
            "run_number": run_number,
            "examples_per_step": examples_per_step,
            "files": files,
        }
        path = staging / MANIFEST_FILE
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _flush(path)
        _flush(staging)
        _put_in_place(staging, final)
    except OSError as error:
        raise _cannot_write(staging, error) from error
    return Checkpoint(final, step, run_number, examples_per_step)


def discard_checkpoint(staging: Path) -> None:
    """Removes what an attempt to save left behind; a full disk does not stop it."""
    shutil.rmtree(staging, ignore_errors=True)


def verify_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a folder, after comparing every file with the manifest.

    Raises:
        AdapterError: the manifest is missing or unreadable, or a file is missing, of another size,
            changed, not listed, or no plain file inside the folder; the message names it.
    """
    manifest = _read_manifest(path)
    listed = manifest["files"]
    present = set()
    for found in sorted(path.rglob("*")):
        name = found.relative_to(path).as_posix()
        mode = found.lstat().st_mode
        if stat.S_ISDIR(mode) or name == MANIFEST_FILE:
            continue
        if not stat.S_ISREG(mode):
            raise _damaged(path, f"{name} is a link or device, not a plain file")
        if name not in listed:
            raise _damaged(path, f"{name} is not listed in {MANIFEST_FILE}")
        present.add(name)
    for name, facts in listed.items():
        if name not in present:
            raise _damaged(path, f"{name} is missing")
        size = (path / name).stat().st_size
        if size != facts["bytes"]:
            raise _damaged(path, f"{name} has {size} bytes, written were {facts['bytes']!r}")
        if compute_sha256(path / name) != facts["sha256"]:
            raise _damaged(path, f"{name} was changed (SHA-256 differs)")
    return Checkpoint(path, manifest["step"], manifest["run_number"], manifest["examples_per_step"])


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Folders called `checkpoint-N`, oldest first: by start of the training, then by step.

    Times of files are not looked at: clocks jump, and copies have new ones. Folders without a
    readable manifest come first.
    """
    found = [
        path
        for path in output_dir.glob("checkpoint-*")
        if _NAME.fullmatch(path.name) and path.is_dir()
    ]
    return sorted(found, key=_order)


def find_newest_checkpoint(output_dir: Path) -> Checkpoint | None:
    """The last checkpoint that is sound; says which were damaged. None when there is none."""
    for path in reversed(list_checkpoints(output_dir)):
        try:
            return verify_checkpoint(path)
        except AdapterError as error:
            logger.warning("检查点已损坏，改用前一个: %s", error)
    return None


def next_run_number(output_dir: Path) -> int:
    """One more than that of any checkpoint in the folder."""
    return 1 + max((_order(path)[0] for path in list_checkpoints(output_dir)), default=0)


def prune_checkpoints(output_dir: Path, *, keep: int, protected: Iterable[Path] = ()) -> list[Path]:
    """Deletes the oldest checkpoints beyond `keep`; returns their paths.

    The newest and the protected ones stay, and count. A checkpoint loses its name before its
    files, so that being killed here leaves no damaged one.
    """
    checkpoints = list_checkpoints(output_dir)
    stay = {path.resolve() for path in protected} | {p.resolve() for p in checkpoints[-1:]}
    removed: list[Path] = []
    for path in checkpoints:
        if len(checkpoints) - len(removed) <= max(keep, 1):
            break
        if path.resolve() not in stay:
            gone = output_dir / f".{path.name}.removed"
            _remove_tree(gone)
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            removed.append(path)
    return removed


def tidy_checkpoints(output_dir: Path) -> None:
    """Finishes or removes what a killed process left; call it while holding the run's lock.

    A checkpoint that was written whole and only lacks its name gets it.
    """
    leftovers = [
        (match, path)
        for path in sorted(output_dir.glob(".checkpoint-*"))
        if (match := _TEMPORARY.fullmatch(path.name))
    ]
    # A new checkpoint (saving) comes before the one it replaces.
    leftovers.sort(key=lambda item: item[0][2] != "saving")
    for match, path in leftovers:
        final = output_dir / match[1]
        if match[2] != "removed" and not final.exists() and _is_sound(path):
            path.rename(final)
            logger.info("完成了中断的检查点保存: %s", final)
            continue
        shutil.rmtree(path, ignore_errors=True)
        if match[2] == "saving":
            logger.info("删除了没有写完的检查点: %s", path)


def compute_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _put_in_place(staging: Path, final: Path) -> None:
    if final.exists():
        replaced = final.parent / f".{final.name}.replaced"
        _remove_tree(replaced)
        final.rename(replaced)
        staging.rename(final)
        _flush(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return
    staging.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_tree(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _is_sound(path: Path) -> bool:
    try:
        verify_checkpoint(path)
    except AdapterError:
        return False
    return True


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    try:
        number = int(_read_manifest(path)["run_number"])
    except AdapterError:
        number = 0
    return number, int(match[1]) if match else 0


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, with every field of the right kind."""
    file = path / MANIFEST_FILE
    try:
        if file.is_symlink() or file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise _damaged(path, f"{MANIFEST_FILE} is a link or above {_MAX_MANIFEST_BYTES} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _damaged(path, f"{MANIFEST_FILE} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, f"{MANIFEST_FILE} cannot be read ({error})") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise _damaged(path, f"{MANIFEST_FILE} is not of version {_VERSION}")
    for name in ("step", "run_number", "examples_per_step"):
        value = content.get(name)
        if type(value) is not int or not 0 <= value < 1 << 53:
            raise _damaged(path, f"{MANIFEST_FILE}: {name} is {value!r}, not a count")
    files = content.get("files")
    if not isinstance(files, dict) or not all(isinstance(v, dict) for v in files.values()):
        raise _damaged(path, f"{MANIFEST_FILE}: files is no table of files")
    for name, facts in files.items():
        parts = name.split("/")
        if {"", ".", ".."} & set(parts) or "\\" in name or ":" in name or "\0" in name:
            raise _damaged(path, f"{MANIFEST_FILE}: {name!r} is no name inside the folder")
        if facts.keys() != {"bytes", "sha256"}:
            raise _damaged(path, f"{MANIFEST_FILE}: {name!r} lacks bytes or sha256")
    return content


def _damaged(path: Path, what: str) -> AdapterError:
    return AdapterError(f"checkpoint: {str(path)!r} is damaged: {what}; use another checkpoint")


def _cannot_write(path: Path, error: OSError) -> OutputError:
    try:
        free = f"; {shutil.disk_usage(path.parent).free / 2**20:.0f} MiB are free"
    except OSError:
        free = ""
    return OutputError(
        f"checkpoint: {str(path)!r} cannot be written ({error.strerror or error}){free}; make room "
        "or mend the folder's permissions, then resume with --resume_from_checkpoint auto"
    )
