from __future__ import annotations

import inspect

import pytest

from tripletune import errors
from tripletune.errors import DataError, TripletuneError

TREE = {
    "ConfigError": ValueError,
    "DataError": ValueError,
    "ModelError": RuntimeError,
    "AdapterError": RuntimeError,
    "OutputError": OSError,
    "MissingPackageError": ImportError,
    "ResourceError": RuntimeError,
}


def test_all_lists_every_error_in_order():
    defined = [name for name, _ in inspect.getmembers(errors, inspect.isclass) if "Error" in name]
    assert errors.__all__ == sorted(defined)


def test_tree_is_complete():
    assert sorted([*TREE, "TripletuneError"]) == errors.__all__


@pytest.mark.parametrize("name", TREE)
def test_every_error_is_ours_and_the_builtin_it_specialises(name):
    assert getattr(errors, name).__bases__ == (TripletuneError, TREE[name])


@pytest.mark.parametrize("name", TREE)
def test_module_docstring_shows_the_tree(name):
    row = next(line for line in errors.__doc__.splitlines() if f" {name} " in line)
    assert f"({TREE[name].__name__})" in row


@pytest.mark.parametrize("name", TREE)
def test_message_is_what_was_said(name):
    assert str(getattr(errors, name)("batch_size: 0 is too small")) == "batch_size: 0 is too small"


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ({}, "broken"),
        ({"path": "a.jsonl"}, "a.jsonl: broken"),
        ({"path": "a.jsonl", "line": 7}, "a.jsonl:7: broken"),
        ({"line": 7}, "broken"),
    ],
)
def test_data_error_says_where(place, shown):
    error = DataError("broken", **place)
    assert str(error) == shown
    assert (error.message, error.path, error.line) == (
        "broken",
        place.get("path"),
        place.get("line"),
    )
