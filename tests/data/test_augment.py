from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.augment import NamePool, augment_file, collect_names, swap_entities
from tripletune.data.readers import load_examples
from tripletune.data.writers import write_examples
from tripletune.errors import ConfigError
from tripletune.schema import Example, Span, Triplet

AUTHOR = Triplet("《甲》", "作者", "张三", "图书", "人物")
DATA = [
    Example("张三写了《甲》。", (AUTHOR,), "a"),
    Example("李四写了《乙》。", (Triplet("《乙》", "作者", "李四", "图书", "人物"),)),
    Example("王五演了丙丁。", (Triplet("丙丁", "主演", "王五", "影视", "人物"),)),
    Example("没有三元组。"),
]


def swap(example, names, *, share=1.0, seed=0, number=1):
    return swap_entities(example, names, share=share, seed=seed, number=number)


def test_names_are_collected_by_side_and_by_type():
    names = collect_names(DATA)
    assert names.by_side == {
        "作者 subject": ("《甲》", "《乙》"),
        "作者 object": ("张三", "李四"),
        "主演 subject": ("丙丁",),
        "主演 object": ("王五",),
    }
    assert names.by_type == {
        "图书": {"《甲》", "《乙》"},
        "人物": {"张三", "李四", "王五"},
        "影视": {"丙丁"},
    }


def test_entities_give_way_to_those_of_their_side_and_type():
    # On either side there is one other name, so the copy is the second example with the first's id.
    copy = swap(DATA[0], collect_names(DATA))
    assert copy == Example("李四写了《乙》。", DATA[1].triplets, "a-swap1")
    assert copy.triplets[0].subject_type == "图书"


def test_every_mention_slot_and_triplet_is_renamed_and_spans_are_dropped():
    first = Triplet(
        "张三", "作品", "甲书", subject_span=Span(0, 2), object_slots=(("合著", "李四"),)
    )
    example = Example("张三与李四合著甲书，张三执笔。", (first, Triplet("甲书", "合著", "李四")))
    names = NamePool({"作品 subject": ("王五",)}, {})
    copy = swap(example, names)
    assert copy.text == "王五与李四合著甲书，王五执笔。"
    assert copy.triplets == (Triplet("王五", "作品", "甲书"), Triplet("甲书", "合著", "李四"))
    assert copy.triplets[0].subject_span is None
    assert copy.triplets[0].object_slots == (("合著", "李四"),)


@pytest.mark.parametrize(
    ("text", "triplet", "name"),
    [
        ("北京大学在北京。", Triplet("北京大学", "所在地", "北京"), "上海"),  # one inside the other
        ("甲在北京。", Triplet("甲", "所在地", "南京"), "上海"),  # not in the text
        ("李四写了甲书。", Triplet("甲书", "作者", "张三"), "李四"),  # the other name is there
        ("张三写了甲书。", Triplet("甲书", "作者", "张三"), "张三丰"),  # holds the one it replaces
        ("周宣帝北周宣帝。", Triplet("宣帝北", "朝代", "北周宣"), "新名"),  # overlapping mentions
    ],
)
def test_what_cannot_be_replaced_cleanly_stays(text, triplet, name):
    sides = {f"{triplet.relation} {side}": (name,) for side in ("subject", "object")}
    assert swap(Example(text, (triplet,)), NamePool(sides, {})) is None


def test_a_copy_that_tears_another_item_apart_is_given_up():
    # 丁乙 overlaps the second 乙丙.
    example = Example("乙丙丁乙丙", (Triplet("乙丙", "关系", "丁乙"),))
    assert swap(example, NamePool({"关系 subject": ("戊己",)}, {})) is None


def test_two_entities_never_become_one():
    example = Example("张三和李四是同事。", (Triplet("张三", "同事", "李四"),))
    names = NamePool({"同事 subject": ("王五",), "同事 object": ("王五",)}, {})
    copies = {swap(example, names, seed=seed).text for seed in range(20)}
    assert copies == {"王五和李四是同事。", "张三和王五是同事。"}


def test_a_name_must_have_all_types():
    triplets = (Triplet("苹果", "创始人", "张三", "公司"), Triplet("苹果", "颜色", "红色", "水果"))
    example = Example("张三的苹果是红色的。", triplets)
    sides = {"创始人 subject": ("华为", "小米"), "颜色 subject": ("梨子", "小米")}
    types = {"公司": {"苹果", "华为", "小米"}, "水果": {"苹果", "梨子", "小米"}}
    assert swap(example, NamePool(sides, types)).text == "张三的小米是红色的。"


def test_file_holds_each_example_before_its_copies(tmp_path):
    write_examples(DATA, tmp_path / "in.jsonl")
    output = tmp_path / "out.jsonl"
    # 丙丁 and 王五 have nobody to give way to, and the last has no triplet.
    assert augment_file(tmp_path / "in.jsonl", output, copies=2, share=1.0) == (4, 4)
    swapped = [Example(e.text, e.triplets) for e in (DATA[1], DATA[0])]
    assert [(e.text, e.triplets) for e in load_examples(output)] == [
        (e.text, e.triplets)
        for e in (DATA[0], swapped[0], swapped[0], DATA[1], swapped[1], swapped[1], *DATA[2:])
    ]


@pytest.mark.parametrize("options", [{"copies": 0}, {"share": 0.0}, {"share": 1.5}])
def test_file_refuses_numbers_that_mean_nothing(tmp_path, options):
    with pytest.raises(ConfigError, match="copies >= 1 and 0 < share <= 1"):
        augment_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", **options)
    assert not (tmp_path / "out.jsonl").exists()


CHARACTERS = st.text(alphabet="甲乙丙丁（)\\n.*", min_size=1, max_size=3).filter(str.strip)


@given(st.lists(CHARACTERS, min_size=3, max_size=9), st.integers(0, 5), st.floats(0.1, 1.0))
def test_copies_hold_their_triplets_as_often_as_the_original(parts, seed, share):
    text = "".join(parts)
    triplets = (Triplet(parts[0], "左", parts[1]), Triplet(parts[2], "右", parts[0]))
    others = [Example(p, (Triplet(p, "左", "丁丁丁"), Triplet(p, "右", "乙乙乙"))) for p in parts]
    names = collect_names([Example(text, triplets), *others])
    copy = swap(Example(text, triplets), names, share=share, seed=seed)
    assert copy == swap(Example(text, triplets), names, share=share, seed=seed)
    if copy is None:
        return
    assert copy.text != text
    assert [t.relation for t in copy.triplets] == ["左", "右"]
    for old, new in zip(triplets, copy.triplets, strict=True):
        assert copy.text.count(new.subject) == text.count(old.subject)
        assert copy.text.count(new.object) == text.count(old.object)
