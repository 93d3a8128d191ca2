"""What a run was: versions, code, data, settings, machine, command and result, in `run.json`.

The record is written when training starts and again when it ends, however it ends, so that a
folder always says what made it. Hashes tell whether two runs saw the same data and whether two
adapters are the same bytes.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tripletune.config import TrainingSettings
from tripletune.errors import DataError, OutputError
from tripletune.training.checkpoints import compute_sha256

__all__ = [
    "RECORD_FILE",
    "build_run_record",
    "find_changed_data",
    "read_run_record",
    "recorded_run",
    "write_run_record",
]

logger = logging.getLogger("tripletune")

RECORD_FILE = "run.json"
_FORMAT = 1
_MAX_BYTES = 16 << 20
_PACKAGES = (
    "tripletune",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "safetensors",
    "sentencepiece",
    "datasets",
    "numpy",
    "triton",
)


def build_run_record(settings: TrainingSettings, *, resumed_from: str | None) -> dict[str, Any]:
    """The record of a run that starts now; JSON values only.

    Args:
        settings: As the run uses them.
        resumed_from: The checkpoint folder it goes on from, or None.
    """
    return {
        "format": _FORMAT,
        "status": "running",
        "started": _now(),
        "ended": None,
        "command": [sys.executable, *sys.argv],
        "folder": str(Path.cwd()),
        "resumed_from": resumed_from,
        "seed": settings.seed,
        "settings": settings.model_dump(mode="json"),
        "data": {
            "train_file": _describe_file(settings.train_file),
            "validation_file": _describe_file(settings.validation_file),
        },
        "versions": {"python": platform.python_version(), **_package_versions()},
        "git": find_git_state(Path(__file__).resolve().parent),
        "hardware": _describe_hardware(),
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
        "result": {},
        "earlier_starts": [],
    }


@contextmanager
def recorded_run(
    settings: TrainingSettings, *, resumed_from: str | None
) -> Iterator[dict[str, Any]]:
    """A training inside, whose record is written before and after it.

    Gives the record; what is put under its `result` is kept. Its status ends as `finished`,
    `interrupted` or `failed`, the last with `error`. The record of the start that is resumed
    becomes part of it.

    Raises:
        OutputError: the record cannot be written.
    """
    output_dir = settings.output_dir
    record = build_run_record(settings, resumed_from=resumed_from)
    if resumed_from is not None and (output_dir / RECORD_FILE).is_file():
        record["earlier_starts"] = _read_earlier_starts(output_dir / RECORD_FILE)
    write_run_record(output_dir, record)
    try:
        yield record
        record["status"] = "finished"
    except KeyboardInterrupt:
        record["status"] = "interrupted"
        raise
    except Exception as error:
        record["status"] = "failed"
        record["error"] = f"{type(error).__name__}: {error}"[:2000]
        raise
    finally:
        record["ended"] = _now()
        adapter = output_dir / "adapter_model.safetensors"
        if record["status"] == "finished" and adapter.is_file():
            record["result"]["adapter_sha256"] = compute_sha256(adapter)
        write_run_record(output_dir, record)


def _read_earlier_starts(path: Path) -> list[dict[str, Any]]:
    """The starts in a run's record, its own last; none, said by name, where it is damaged."""
    try:
        earlier = read_run_record(path)
    except DataError as error:
        # The checkpoint has all that the training needs.
        logger.warning("之前的运行记录无法读取，重新开始记录: %s", error)
        return []
    kept = {k: earlier.get(k) for k in ("started", "ended", "status", "command", "data")}
    return [*earlier.get("earlier_starts", []), kept]


def _render(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, indent=1)
    try:
        return (text + "\n").encode("utf-8")
    except UnicodeEncodeError:
        # A file name that is no UTF-8.
        return (json.dumps(record, indent=1) + "\n").encode("ascii")


def write_run_record(output_dir: Path, record: Mapping[str, Any]) -> Path:
    """Writes `run.json`, replacing an earlier one at once, and returns its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = output_dir / RECORD_FILE
    temporary = output_dir / f".{RECORD_FILE}.writing"
    try:
        temporary.write_bytes(_render(record))
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"run record: {str(path)!r} cannot be written ({error.strerror}); make room or mend "
            "the folder's permissions"
        ) from error
    return path


def read_run_record(path: Path) -> dict[str, Any]:
    """The record in a `run.json`.

    Raises:
        DataError: it is missing, damaged, or of a format this release does not know.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"is above {_MAX_BYTES} bytes, which no run record is", path=path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"no readable run record ({error})", path=path) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f"no run record of format {_FORMAT}; update tripletune", path=path)
    for name in ("settings", "data", "versions", "result"):
        if not isinstance(content.get(name), dict):
            raise DataError(f"run record without {name}", path=path)
    starts = content.get("earlier_starts", [])
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise DataError("run record whose earlier_starts is no list of starts", path=path)
    return content


def find_changed_data(record: Mapping[str, Any]) -> list[str]:
    """Names of the data files whose content is not that of the start that was resumed."""
    starts = record.get("earlier_starts")
    before = starts[-1].get("data") if starts else None
    if not isinstance(before, dict):
        return []
    return [
        facts["path"]
        for name, facts in record["data"].items()
        if isinstance(before.get(name), dict) and before[name].get("sha256") != facts["sha256"]
    ]


def find_git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files were changed, of the repository a folder is in; None outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if status is None else bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _describe_file(path: Path) -> dict[str, Any]:
    exists = path.is_file()
    return {
        "path": str(path),
        "bytes": path.stat().st_size if exists else None,
        "sha256": compute_sha256(path) if exists else None,
    }


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _describe_hardware() -> dict[str, Any]:
    import torch

    names = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    gpus = [torch.cuda.get_device_properties(index) for index in names]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "gpus": [{"name": g.name, "memory_gib": round(g.total_memory / 2**30, 1)} for g in gpus],
        "cuda": torch.version.cuda,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
