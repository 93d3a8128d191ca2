from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tripletune.data.output_path import check_output_path
from tripletune.errors import ConfigError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    return path


def test_another_file_is_accepted_whether_it_is_there_or_not(source: Path) -> None:
    other = source.with_name("out.jsonl")
    check_output_path(other, [source])
    other.write_text("", encoding="utf-8")
    check_output_path(other, [source])


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_input_is_refused_by_each_of_its_names(
    source: Path, link: Callable[..., None] | None
) -> None:
    target = source.parent / "." / source.name
    if link is not None:
        target = source.with_name("link.jsonl")
        link(source, target)
    with pytest.raises(ConfigError, match=r"jsonl' is one of the files read; name another file"):
        check_output_path(target, [source.with_name("first.jsonl"), source])
