from __future__ import annotations

import random
import unicodedata

import pytest

from tripletune.data.generator import names
from tripletune.data.generator.names import COMMON_CHARACTERS, NAME_KINDS, NameSource, pool_of

OPEN_KINDS = [kind for kind, (_, is_open) in NAME_KINDS.items() if is_open]
CLOSED_KINDS = [kind for kind, (_, is_open) in NAME_KINDS.items() if not is_open]


def test_common_characters_are_gb2312_level_1():
    assert len(COMMON_CHARACTERS) == len(set(COMMON_CHARACTERS)) == 3755
    assert COMMON_CHARACTERS[0] == "啊"
    assert COMMON_CHARACTERS[-1] == "座"


def test_pool_of_is_pinned():
    # crc32 of the UTF-8 bytes, modulo 10: 0-3 train, 4-5 validation, 6-9 base.
    assert [pool_of(name) for name in ("a", "b", "c", "d", "e", "f")] == [
        {0: "train", 1: "train", 2: "train", 3: "train", 4: "validation", 5: "validation"}.get(
            crc % 10, "base"
        )
        for crc in (0xE8B7BE43, 0x71BEEFF9, 0x06B9DF6F, 0x98DD4ACC, 0xEFDA7A5A, 0x76D32BE0)
    ]


@pytest.mark.parametrize("kind", OPEN_KINDS)
@pytest.mark.parametrize("pool", ["train", "validation", "base"])
def test_draw_gives_only_names_of_the_pool(kind, pool):
    source = NameSource(pool, random.Random(3), odd_names=0.2)
    assert {pool_of(source.draw(kind)) for _ in range(50)} == {pool}


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_draw_has_a_large_space_of_open_names(kind):
    source = NameSource("train", random.Random(5))
    drawn = [source.draw(kind) for _ in range(1500)]
    # 1,500 of 100,000 equally likely names repeat about 11 times.
    assert len(drawn) - len(set(drawn)) <= 25


@pytest.mark.parametrize("kind", CLOSED_KINDS)
def test_draw_ignores_the_pool_for_closed_kinds(kind):
    first = [NameSource("train", random.Random(1)).draw(kind) for _ in range(5)]
    second = [NameSource("base", random.Random(1)).draw(kind) for _ in range(5)]
    assert first == second


@pytest.mark.parametrize("kind", list(NAME_KINDS))
def test_draw_gives_names_that_survive_nfkc(kind):
    source = NameSource("base", random.Random(7), odd_names=0.3)
    for _ in range(100):
        name = source.draw(kind)
        assert unicodedata.normalize("NFKC", name) == name
        assert len(name) >= 2
        assert not set(name) & set(" ,()（），、《》\n")


def test_draw_is_the_same_for_the_same_seed():
    draws = [
        [NameSource("train", random.Random(11)).draw(kind) for kind in NAME_KINDS] for _ in range(2)
    ]
    assert draws[0] == draws[1]


def test_odd_names_use_characters_no_morpheme_has():
    source = NameSource("base", random.Random(2), odd_names=1.0)
    drawn = "".join(source.draw("人物") for _ in range(3000))
    assert len(set(drawn)) > 3000


def test_number_includes_both_ends():
    source = NameSource("train", random.Random(1))
    assert {source.number(2, 4) for _ in range(200)} == {2, 3, 4}


def test_module_exports_what_it_says():
    assert all(hasattr(names, name) for name in names.__all__)
