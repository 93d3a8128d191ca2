"""Names of things that do not exist, made from morphemes, in three disjoint pools.

A name of an open type (people, companies, books, ...) belongs to exactly one pool, decided by a
checksum of the name itself: two generators with different pools can never draw the same name,
whatever their seeds. Closed types (countries, professions, dates, ...) are shared.

No package of made-up or listed names is used, because morphemes give more of them, faster, and by
pool. 100,000 draws gave 93,155 different people, 98,028 companies and 69,095 towns here, at 4 to 6
microseconds each; Faker 40.54 (MIT, zh_CN) gave 21,679, 324 and 67, at 1 to 29 microseconds, real
towns among them. A list from such a package, or any other, is read with `names_file` (see
`domain_files`).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeVar

from tripletune.data.generator import morphemes as m
from tripletune.errors import ConfigError

__all__ = ["COMMON_CHARACTERS", "NAME_KINDS", "NameSource", "Pool", "has_name", "pool_of"]

Pool = Literal["train", "validation", "base"]
_Item = TypeVar("_Item")

_POOLS: Final[tuple[Pool, ...]] = (
    *("train",) * 4,
    *("validation",) * 2,
    *("base",) * 4,
)


# The ideographs of Unicode 1.1.
_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH = 0x4E00, 0x9FA5


def _decode_common_characters() -> str:
    """Level 1 of GB 2312: rows 16 to 55, 94 cells a row; the last row has 89."""
    codes = [(high, low) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)]
    return "".join(bytes(code).decode("gb2312") for code in codes if code < (0xD7, 0xFA))


COMMON_CHARACTERS = _decode_common_characters()
"""The 3,755 characters of GB 2312 level 1."""


def pool_of(name: str) -> Pool:
    """The pool that a name of an open type belongs to.

    Example:
        >>> pool_of("临海大学") == pool_of("临海大学")
        True
    """
    return _POOLS[zlib.crc32(name.encode("utf-8")) % 10]


def has_name(pool: Pool, name: str) -> bool:
    """Whether a listed name may be drawn for a pool.

    Lists are short, so the training pool has what would be left to the base model: four fifths.
    """
    owner = pool_of(name)
    return owner == pool or (owner == "base" and pool == "train")


class NameSource:
    """Draws names and values from a seeded stream.

    Only `random.Random.random` is used, whose sequence for a seed is the same in every version of
    Python.

    Args:
        pool: Which names of open types may be drawn.
        stream: The random numbers.
        odd_names: Share of stems made of arbitrary common characters instead of morphemes, 0 to 1.
        lists: Kinds whose names are given: the names, and whether every pool has all of them.
    """

    def __init__(
        self,
        pool: Pool,
        stream: random.Random,
        *,
        odd_names: float = 0.0,
        lists: Mapping[str, tuple[Sequence[str], bool]] | None = None,
    ) -> None:
        self.pool = pool
        self._random = stream.random
        self._odd_names = odd_names
        self._lists = {
            kind: [name for name in names if shared or has_name(pool, name)]
            for kind, (names, shared) in (lists or {}).items()
        }
        self._kinds: dict[str, tuple[Callable[[], str], bool]] = {
            kind: (getattr(self, f"_{method}"), is_open)
            for kind, (method, is_open) in NAME_KINDS.items()
        }

    def draw(self, kind: str) -> str:
        """A name or value of a kind that is listed or stands in `NAME_KINDS`.

        Raises:
            ConfigError: a list has no name for this pool.
        """
        if kind in self._lists:
            return self._choose_listed(kind)
        make, is_open = self._kinds[kind]
        name = make()
        while is_open and pool_of(name) != self.pool:
            name = make()
        return name

    def _choose_listed(self, kind: str) -> str:
        names = self._lists[kind]
        if not names:
            raise ConfigError(
                f"type {kind!r}: none of its names belongs to the pool {self.pool!r}; give more "
                'names, or set "shared": true so that every pool has all of them'
            )
        return self.pick(names)

    def pick(self, items: Sequence[_Item]) -> _Item:
        """One of the items, all equally likely."""
        return items[int(self._random() * len(items))]

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self._random() * (high - low + 1))

    def _odd(self, low: int, high: int) -> str:
        """Characters without meaning, now and then one that is rare."""
        return "".join(
            self.pick(COMMON_CHARACTERS)
            if self._random() < 0.97
            else chr(self.number(_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH))
            for _ in range(self.number(low, high))
        )

    def _is_odd(self) -> bool:
        return self._odd_names > 0 and self._random() < self._odd_names

    def _transliteration(self, low: int, high: int) -> str:
        return "".join(
            self.pick(m.TRANSLITERATION_CHARACTERS) for _ in range(self.number(low, high))
        )

    def _person(self) -> str:
        if self._is_odd():
            return self._odd(2, 4)
        chance = self._random()
        if chance < 0.10:
            return self._transliteration(2, 4) + "·" + self._transliteration(2, 4)
        surname = self.pick(m.COMPOUND_SURNAMES if chance < 0.14 else m.SURNAMES)
        given = self.pick(m.GIVEN_CHARACTERS)
        if chance < 0.85:
            given += self.pick(m.GIVEN_CHARACTERS)
        return surname + given

    def _place_stem(self) -> str:
        if self._is_odd():
            return self._odd(2, 3)
        return self.pick(m.PLACE_STARTS) + self.pick(m.PLACE_ENDS)

    def _brand(self) -> str:
        if self._is_odd():
            return self._odd(2, 4)
        chance = self._random()
        if chance < 0.06:
            count = 2 if chance < 0.03 else 3
            return "".join(self.pick(m.LATIN_SYLLABLES) for _ in range(count)).capitalize()
        if chance < 0.12:
            return self._transliteration(2, 4)
        brand = self.pick(m.BRAND_CHARACTERS) + self.pick(m.BRAND_CHARACTERS)
        return brand + self.pick(m.BRAND_CHARACTERS) if chance < 0.3 else brand

    def _company(self) -> str:
        chance = self._random()
        if chance < 0.12:
            return self._brand() + self.pick(
                ("集团", "网", "影视", "科技", "银行", "工作室", "传媒", "航空")
            )
        place = self._place_stem() if chance < 0.35 else ""
        return place + self._brand() + self.pick(m.INDUSTRIES) + self.pick(m.COMPANY_SUFFIXES)

    def _school(self) -> str:
        stem = self._place_stem() if self._random() < 0.8 else self._brand()
        return stem + self.pick(m.SCHOOL_SUFFIXES)

    def _city(self) -> str:
        chance = self._random()
        if chance < 0.12:
            return self._transliteration(3, 4) + ("市" if chance < 0.06 else "")
        if chance < 0.5:
            return self._place_stem() + self.pick(m.PLACE_ENDS) + self.pick(m.CITY_SUFFIXES)
        return self._place_stem() + self.pick(m.CITY_SUFFIXES)

    def _nation(self) -> str:
        return self._transliteration(2, 3) + self.pick(m.COUNTRY_SUFFIXES)

    def _title(self, patterns: Sequence[str]) -> str:
        if self._is_odd():
            return self._odd(2, 7)
        return "".join(self._title_part(symbol) for symbol in self.pick(patterns))

    def _title_part(self, symbol: str) -> str:
        if symbol == "N":
            return self.pick(m.TITLE_NOUNS)
        if symbol == "A":
            return self.pick(m.ADJECTIVES)
        if symbol == "V":
            return self.pick(m.VERBS)
        if symbol == "P":
            return self._place_stem()
        return self.pick(m.GIVEN_CHARACTERS) if symbol == "G" else symbol

    def _book(self) -> str:
        return self._title(m.BOOK_PATTERNS)

    def _film(self) -> str:
        return self._title(m.FILM_PATTERNS)

    def _song(self) -> str:
        return self._title(m.SONG_PATTERNS)

    def _album(self) -> str:
        return self._title(m.ALBUM_PATTERNS)

    def _publisher(self) -> str:
        stem = self._place_stem() if self._random() < 0.6 else self._brand()
        return stem + self.pick(m.PUBLISHER_SUFFIXES)

    def _media(self) -> str:
        stem = self._place_stem() if self._random() < 0.7 else self._brand()
        return stem + self.pick(m.MEDIA_SUFFIXES)

    def _award(self) -> str:
        edition = f"第{self.number(2, 60)}届" if self._random() < 0.2 else ""
        return edition + self._brand() + self.pick(m.AWARD_NOUNS)

    def _product(self) -> str:
        model = self.pick(("", "", "", f"{self.pick('ABCGKMPRSTXZ')}{self.number(1, 99)}"))
        return self._brand() + model + self.pick(m.PRODUCT_NOUNS)

    def _country(self) -> str:
        return self.pick(m.COUNTRIES)

    def _profession(self) -> str:
        return self.pick(m.PROFESSIONS)

    def _language(self) -> str:
        return self.pick(m.LANGUAGES)

    def _ethnic_group(self) -> str:
        return self.pick(m.ETHNIC_GROUPS)

    def _date(self) -> str:
        year, chance = self.number(1900, 2024), self._random()
        if chance < 0.3:
            return f"{year}年"
        month = self.number(1, 12)
        if chance < 0.55:
            return f"{year}年{month}月"
        return f"{year}年{month}月{self.number(1, 28)}日"

    def _decimal(self, low: int, high: int) -> str:
        whole = self.number(low, high)
        return f"{whole}.{self.number(1, 9)}" if self._random() < 0.35 else str(whole)

    def _area(self) -> str:
        return self._decimal(2, 30000) + self.pick(("平方公里", "平方千米", "平方公里", "公顷"))

    def _population(self) -> str:
        return (
            self._decimal(1, 2000) + "万" + self.pick(("人", "人", ""))
            if (self._random() < 0.7)
            else f"{self.number(3000, 99999)}人"
        )

    def _money(self) -> str:
        return self._decimal(1, 9000) + self.pick(
            ("万元", "亿元", "万美元", "亿美元", "万元人民币")
        )

    def _plain_number(self) -> str:
        return self._decimal(10, 99 if self._random() < 0.4 else 9999)

    def _term(self) -> str:
        if self._random() < 0.4:
            return self._transliteration(2, 4)
        return self._brand() + self.pick(m.TITLE_NOUNS)


NAME_KINDS: dict[str, tuple[str, bool]] = {
    "人物": ("person", True),
    "公司": ("company", True),
    "学校": ("school", True),
    "城市": ("city", True),
    "虚构国家": ("nation", True),
    "图书": ("book", True),
    "影视作品": ("film", True),
    "歌曲": ("song", True),
    "专辑": ("album", True),
    "出版社": ("publisher", True),
    "媒体": ("media", True),
    "奖项": ("award", True),
    "产品": ("product", True),
    "国家": ("country", False),
    "职业": ("profession", False),
    "语言": ("language", False),
    "民族": ("ethnic_group", False),
    "日期": ("date", False),
    "面积": ("area", False),
    "人口": ("population", False),
    "金额": ("money", False),
    "数字": ("plain_number", False),
    "专名": ("term", True),
}
"""Kind to (the method that makes one, whether its names are divided into pools)."""
