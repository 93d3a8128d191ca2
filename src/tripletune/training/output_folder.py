"""Whether a run can write where it is to write, before it spends minutes on anything else."""

from __future__ import annotations

import os
from pathlib import Path

from tripletune.errors import OutputError

__all__ = ["check_output_dir"]


def check_output_dir(path: Path) -> None:
    """Makes the folder if need be and makes sure that it can be written.

    Raises:
        OutputError: the path is a file, or the folder cannot be made or written.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"output_dir: {str(path)!r} is a file; give a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"output_dir: {str(path)!r} cannot be written ({error.strerror}); give another folder "
            "or mend its permissions"
        ) from error
