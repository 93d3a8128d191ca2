from __future__ import annotations

import pytest

from tripletune.data.generator.names import NAME_KINDS
from tripletune.data.generator.usual_types import _KINDS, _TYPES_BY_KIND, ANY_KIND, find_kind


def test_every_kind_is_one_that_names_are_made_of():
    assert {*_TYPES_BY_KIND, ANY_KIND} <= set(NAME_KINDS)


def test_every_type_is_listed_once():
    names = [name for names in _TYPES_BY_KIND.values() for name in names.split()]
    assert len(names) == len(_KINDS)
    assert all(name == name.casefold() for name in names)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("娱乐人物", "人物"), ("PER", "人物"), (" Date ", "日期"), ("学科专业", "专名"), ("", "专名")],
)
def test_find_kind_knows_usual_names_and_takes_any_other(name: str, kind: str):
    assert find_kind(name) == kind
