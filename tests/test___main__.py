from __future__ import annotations

import subprocess
import sys


def test_module_is_the_command() -> None:
    command = [sys.executable, "-m", "tripletune", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "tripletune 0.1.0\n")
