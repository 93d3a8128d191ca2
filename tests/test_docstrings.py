from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tripletune

MODULES = [module.name for module in pkgutil.walk_packages(tripletune.__path__, "tripletune.")]


def find_examples() -> list[doctest.DocTest]:
    """Every docstring of the package that has an example."""
    finder = doctest.DocTestFinder()
    return [
        test
        for name in MODULES
        for test in finder.find(importlib.import_module(name), name)
        if test.examples
    ]


EXAMPLES = find_examples()


def test_there_are_examples():
    assert len(EXAMPLES) > 20


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_shows_what_happens(example: doctest.DocTest):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example).failed == 0
