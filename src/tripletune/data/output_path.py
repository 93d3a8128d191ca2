"""What is written is never one of the files that are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tripletune.errors import ConfigError

__all__ = ["check_output_path"]


def check_output_path(output_path: Path | None, input_paths: Iterable[Path]) -> None:
    """Makes sure that an output is none of the inputs, by whatever name or link.

    Args:
        output_path: None: there is none.
        input_paths: Whether they are there or not.

    Raises:
        ConfigError: it is.
    """
    if output_path is None:
        return
    for path in input_paths:
        is_same = path.resolve() == output_path.resolve()
        if is_same or (path.exists() and output_path.exists() and path.samefile(output_path)):
            raise ConfigError(
                f"output: {str(output_path)!r} is one of the files read; name another file"
            )
