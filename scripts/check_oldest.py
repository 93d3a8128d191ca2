"""Runs the networks, tokenizers and data tests with the oldest supported `transformers`.

    python scripts/check_oldest.py

Makes a temporary virtual environment with the pinned set, replaces `transformers` (and what it
needs) by the lowest release of the range in `pyproject.toml`, and runs the tests that touch it.
Needs a package index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

OLDEST = "transformers==5.10.1"
TESTS = ["tests/parity", "tests/models", "tests/data/test_collate.py", "tests/training"]
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    """The exit code of the tests."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run(
            [*install, "-r", str(REPOSITORY / "requirements-dev.txt")], check=True, cwd=REPOSITORY
        )
        subprocess.run([*install, OLDEST], check=True, cwd=REPOSITORY)
        done = subprocess.run([python, "-m", "pytest", "-q", *TESTS], check=False, cwd=REPOSITORY)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
