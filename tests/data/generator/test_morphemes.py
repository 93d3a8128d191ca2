from __future__ import annotations

import unicodedata

import pytest

from tripletune.data.generator import morphemes


def test_every_list_is_exported_and_nothing_else():
    lists = {name for name, value in vars(morphemes).items() if isinstance(value, tuple)}
    assert set(morphemes.__all__) == lists


@pytest.mark.parametrize("name", morphemes.__all__)
def test_pieces_are_plain_text(name):
    for piece in getattr(morphemes, name):
        assert unicodedata.normalize("NFKC", piece) == piece
        assert not set(piece) & set(" ,()，、《》{}")


@pytest.mark.parametrize("name", ["SURNAMES", "GIVEN_CHARACTERS", "TRANSLITERATION_CHARACTERS"])
def test_lists_of_characters_hold_single_characters(name):
    assert {len(piece) for piece in getattr(morphemes, name)} == {1}


@pytest.mark.parametrize(
    "name", ["COUNTRIES", "LANGUAGES", "PROFESSIONS", "ETHNIC_GROUPS", "INDUSTRIES"]
)
def test_closed_lists_name_nothing_twice(name):
    pieces = getattr(morphemes, name)
    assert len(pieces) == len(set(pieces)) >= 20
