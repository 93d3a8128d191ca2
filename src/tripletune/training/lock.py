"""One training a folder: the lock that a run holds on its output folder, with its owner's name.

The lock is the operating system's (`flock`), so it ends with the process that holds it, however
that process ended. The file says who the owner is; what a dead owner left is taken over and said.
"""

from __future__ import annotations

import errno
import getpass
import json
import logging
import os
import socket
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO

from tripletune.errors import OutputError

__all__ = ["LOCK_FILE", "RunLock", "check_unlocked"]

logger = logging.getLogger("tripletune")

LOCK_FILE = ".run.lock"
_MAX_OWNER_BYTES = 4096


class RunLock:
    """Holds an output folder while inside `with`.

    Args:
        output_dir: The folder, which exists.

    Raises:
        OutputError: on entering, another process holds it (the message shows which), or the lock
            file cannot be written.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / LOCK_FILE
        self._file: IO[str] | None = None

    def __enter__(self) -> RunLock:
        try:
            file = open(self.path, "a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise OutputError(
                f"output_dir: lock {str(self.path)!r} cannot be written ({error.strerror}); give "
                "another folder or mend its permissions"
            ) from error
        owner = _read_owner(file)
        if not _try_lock(file):
            file.close()
            raise _is_locked(self.path, owner)
        if owner:
            logger.warning("接管了已结束进程留下的锁: %s (%s)", self.path, owner)
        file.seek(0)
        file.truncate()
        file.write(json.dumps(_describe_this_process(), ensure_ascii=False) + "\n")
        file.flush()
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            # Emptied, not deleted: another process may already wait on this very file.
            self._file.seek(0)
            self._file.truncate()
            self._file.close()
            self._file = None


def check_unlocked(output_dir: Path) -> None:
    """Makes sure that no process trains into the folder, without taking the lock.

    Raises:
        OutputError: one does; the message shows which.
    """
    path = output_dir / LOCK_FILE
    if not path.exists():
        return
    with open(path, "a+", encoding="utf-8", errors="replace") as file:
        owner = _read_owner(file)
        if not _try_lock(file):
            raise _is_locked(path, owner)


def _describe_this_process() -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "user": user,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv)[:1000],
    }


def _read_owner(file: IO[str]) -> str:
    """What the lock file says of its owner, in one line; empty when it says nothing."""
    file.seek(0)
    text = file.read(_MAX_OWNER_BYTES).strip()
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return text[:200]
    if not isinstance(facts, dict):
        return text[:200]
    return ", ".join(
        f"{name} {facts[name]}"
        for name in ("pid", "host", "user", "started", "command")
        if name in facts
    )


def _is_locked(path: Path, owner: str) -> OutputError:
    return OutputError(
        f"output_dir: {str(path.parent)!r} 正被另一个训练使用 (another run is training into it: "
        f"{owner or 'owner unknown'}); wait for it, stop it, or give another --output_dir"
    )


def _try_lock(file: IO[str]) -> bool:
    """Takes the operating system's lock if it is free, until the file is closed."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        logger.warning("文件系统不支持锁 (%s)，不能防止同时训练: %s", error.strerror, file.name)
    return True
