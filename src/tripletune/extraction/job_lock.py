"""One job an output: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tripletune.errors import OutputError

__all__ = ["OutputLock"]

logger = logging.getLogger(__name__)


class OutputLock:
    """Holds `OUT.lock` until it is released.

    Args:
        path: Of the output; its folder is made.

    Raises:
        OutputError: another process holds it, or the lock cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"output: {str(path)!r} is being written by another process; wait for it, stop it, "
                "or name another output"
            ) from None
        except NotImplementedError as error:  # some network file systems
            logger.warning("%s: two jobs at once would not be noticed (%s)", path, error)
        except OSError as error:
            raise OutputError(f"output: {str(path)!r} cannot be written ({error})") from error

    def release(self) -> None:
        """Lets others write."""
        if self._lock.is_locked:
            # Before it is free: afterwards it may be another's.
            with suppress(OSError):  # Windows removes no open file
                Path(self._lock.lock_file).unlink()
            self._lock.release()
