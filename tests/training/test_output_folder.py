from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tripletune.errors import OutputError
from tripletune.training.output_folder import check_output_dir

NOBODY = 65534


def test_check_output_dir_makes_the_folder_and_leaves_it_empty(tmp_path):
    check_output_dir(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_check_output_dir_refuses_a_file(tmp_path):
    path = tmp_path / "out"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"output_dir: '.*out' is a file; give a folder"):
        check_output_dir(path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_check_output_dir_refuses_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"output_dir: '.*below' cannot be written \(Not a dir"):
        check_output_dir(tmp_path / "file" / "below")


@contextmanager
def without_privileges() -> Iterator[None]:
    """As an ordinary user inside, also where the superuser runs the tests."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_check_output_dir_refuses_a_folder_without_permission():
    # Not below the tests' own folder, which others may not even enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        words = r"cannot be written \(Permission denied\); give another"
        with without_privileges():
            for path in (folder, folder / "out"):
                with pytest.raises(OutputError, match=words):
                    check_output_dir(path)
        folder.chmod(0o755)
        check_output_dir(folder / "out")
