"""Every error this package raises on purpose.

```
TripletuneError
├── ConfigError      (ValueError)    a setting is unknown, out of range or contradicts another
├── DataError        (ValueError)    a record or data file cannot be used
├── ModelError       (RuntimeError)  a model or tokenizer folder cannot be used
├── AdapterError     (RuntimeError)  an adapter folder or checkpoint cannot be used
├── OutputError      (OSError)       a file or folder cannot be written
├── MissingPackageError (ImportError) an optional package is not installed
└── ResourceError    (RuntimeError)  memory, disk or device does not suffice
```

A message says, in this order: which setting or record, the value received, what is accepted, and
what to do. `except TripletuneError` catches all of them; only `tripletune.cli` turns them into an
exit code.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "AdapterError",
    "ConfigError",
    "DataError",
    "MissingPackageError",
    "ModelError",
    "OutputError",
    "ResourceError",
    "TripletuneError",
]


class TripletuneError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(TripletuneError, ValueError):
    """A setting is unknown, out of range, or contradicts another one."""


class DataError(TripletuneError, ValueError):
    """A record or a data file cannot be used.

    Args:
        message: What is wrong, the value received, what is accepted, what to do.
        path: The file it was found in, when there is one.
        line: The one-based line number in that file, when there is one.
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None):
        self.message = message
        self.path = path
        self.line = line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)


class ModelError(TripletuneError, RuntimeError):
    """A model or tokenizer folder is missing, damaged or of an unknown kind."""


class AdapterError(TripletuneError, RuntimeError):
    """An adapter folder or a training checkpoint is missing or damaged."""


class OutputError(TripletuneError, OSError):
    """A file or folder cannot be written."""


class MissingPackageError(TripletuneError, ImportError):
    """An optional package is needed and not installed; the message has the install command."""


class ResourceError(TripletuneError, RuntimeError):
    """Memory, disk space or a device does not suffice for what was asked."""
