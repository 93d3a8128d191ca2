from __future__ import annotations

import pytest

from tripletune.errors import DataError
from tripletune.evaluation.aliases import AliasKey, count_with_aliases, read_aliases
from tripletune.evaluation.counts import Counts


def key(subject, relation, object_, **slots):
    return AliasKey(subject, relation, frozenset({"@value": object_, **slots}.items()))


def test_read_aliases_lowers_and_merges_lines(tmp_path):
    path = tmp_path / "alias.txt"
    path.write_text(
        "IBM\t国际商业机器\tBig Blue\n\n北大\t北京大学\nibm\t蓝色巨人\n", encoding="utf-8"
    )
    assert read_aliases(path) == {
        "ibm": frozenset({"国际商业机器", "big blue", "蓝色巨人"}),
        "北大": frozenset({"北京大学"}),
    }


def test_read_aliases_rejects_a_line_without_alias(tmp_path):
    path = tmp_path / "alias.txt"
    path.write_text("北大\t北京大学\n清华\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"alias\.txt:2: '清华' is not a word and its aliases"):
        read_aliases(path)


def test_read_aliases_names_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt: alias file cannot be read"):
        read_aliases(tmp_path / "nowhere.txt")


ONE_WAY = {"北大": frozenset({"北京大学"})}
BOTH_WAYS = {"北大": frozenset({"北京大学"}), "北京大学": frozenset({"北大"})}


@pytest.mark.parametrize(
    ("gold", "predicted", "aliases", "expected"),
    [
        # A predicted subject matches through its own aliases; seen from gold it does not.
        ([key("北京大学", "位于", "北京")], [key("北大", "位于", "北京")], ONE_WAY, (1, 1, 1, 0)),
        ([key("北大", "位于", "北京")], [key("北京大学", "位于", "北京")], ONE_WAY, (1, 1, 0, 1)),
        ([key("北京大学", "位于", "北京")], [key("北大", "位于", "北京")], BOTH_WAYS, (1, 1, 1, 1)),
        # An object needs the alias both ways.
        ([key("张三", "校", "北京大学")], [key("张三", "校", "北大")], ONE_WAY, (1, 1, 0, 0)),
        ([key("张三", "校", "北京大学")], [key("张三", "校", "北大")], BOTH_WAYS, (1, 1, 1, 1)),
        # So does the value of a further slot.
        (
            [key("张三", "奖", "金奖", inArea="北京大学")],
            [key("张三", "奖", "金奖", inArea="北大")],
            BOTH_WAYS,
            (1, 1, 1, 1),
        ),
        (
            [key("张三", "奖", "金奖", inArea="北大")],
            [key("张三", "奖", "金奖")],
            BOTH_WAYS,
            (1, 1, 0, 0),
        ),
        # Another relation never matches.
        ([key("北大", "位于", "北京")], [key("北大", "建于", "北京")], BOTH_WAYS, (1, 1, 0, 0)),
        # Predictions that are aliases of one another are merged.
        (
            [key("北京大学", "位于", "北京")],
            [key("北大", "位于", "北京"), key("北京大学", "位于", "北京")],
            BOTH_WAYS,
            (1, 1, 1, 1),
        ),
        ([], [], BOTH_WAYS, (0, 0, 0, 0)),
    ],
)
def test_count_with_aliases_follows_the_official_rules(gold, predicted, aliases, expected):
    assert count_with_aliases(gold, predicted, aliases) == Counts(*expected)
