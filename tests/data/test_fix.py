from __future__ import annotations

import json
from pathlib import Path

import pytest

from tripletune.data.check import check_files
from tripletune.data.fix import FixSettings, fix_file
from tripletune.data.readers import load_examples
from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.errors import ConfigError, DataError
from tripletune.schema import Example, Span, Triplet

A, B = Triplet("甲", "位于", "乙"), Triplet("甲", "属于", "乙")
LONG = "百度在线网络技术有限公司于二零零零年一月一日在北京中关村创立，创始人是李彦宏。"


def write(path: Path, *examples: Example) -> Path:
    path.write_text("".join(example.to_json() + "\n" for example in examples), encoding="utf-8")
    return path


def fix(path: Path, settings: FixSettings | None = None, *against: Path) -> list[Example]:
    target = path.with_name("fixed.jsonl")
    fix_file(path, target, against=against, settings=settings)
    return load_examples(target)


def test_leaks_and_duplicates_go_and_are_listed(tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl",
        Example("甲位于乙。", (A,)),
        Example("独一无二"),
        Example("独一，无二"),
        Example(LONG),
        Example("丁"),
    )
    dev = write(
        tmp_path / "dev.jsonl", Example("甲位于乙"), Example(LONG.replace("李彦宏", "李彦洪"))
    )
    before = train.read_bytes(), dev.read_bytes()
    assert fix(train, None, dev) == [Example("独一无二"), Example("丁")]
    listed = (tmp_path / "fixed.jsonl.problems.jsonl").read_text("utf-8").splitlines()
    assert [(p["line"], p["reason"]) for p in map(json.loads, listed)] == [
        (1, "leak_normalised"),
        (3, "duplicate_text"),
        (4, "leak_near"),
    ]
    report = json.loads((tmp_path / "fixed.jsonl.report.json").read_text("utf-8"))
    assert (report["read"], report["written"]) == (5, 2)
    assert (train.read_bytes(), dev.read_bytes()) == before


def test_real_leaks_of_the_template_seed_are_gone(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "datasets" / "triplet_template_seed"
    train, dev = folder / "train.jsonl", folder / "dev.jsonl"
    report = fix_file(train, tmp_path / "train.jsonl", against=[dev])
    texts = {json.loads(line)["text"] for line in train.read_text("utf-8").splitlines()}
    held_out = {json.loads(line)["text"] for line in dev.read_text("utf-8").splitlines()}
    assert len(texts & held_out) > 0
    kept = [example.text for example in load_examples(tmp_path / "train.jsonl")]
    assert sorted(kept) == sorted(texts - held_out)
    assert (report.num_read, report.num_written) == (903, len(texts - held_out))
    counts = check_files([tmp_path / "train.jsonl", dev]).counts
    assert not any(kind.startswith("leak") for kind in counts)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("first", [Example("x", (A,)), Example("y")]),
        ("merge", [Example("x", (A, B)), Example("y")]),
        ("drop", [Example("y")]),
    ],
)
def test_contradictory_labels_follow_the_policy(
    tmp_path: Path, policy: str, expected: list[Example]
) -> None:
    path = write(tmp_path / "a", Example("x", (A,)), Example("x", (B,)), Example("y"), Example("y"))
    settings = FixSettings(contradictory=policy)  # type: ignore[arg-type]
    assert fix(path, settings) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", [("java程序", "作者", "甲"), ("丙丙", "作者", "甲"), ("甲", "写", "Java")]),
        ("nearest", [("Java程序", "作者", "甲"), ("甲", "写", "Java")]),
        ("drop", [("甲", "写", "Java")]),
    ],
)
def test_absent_items_follow_the_policy(
    tmp_path: Path, policy: str, expected: list[tuple[str, str, str]]
) -> None:
    absent = Triplet("java程序", "作者", "甲"), Triplet("丙丙", "作者", "甲")
    triplets = (*absent, Triplet("甲", "写", "Java"))
    path = write(tmp_path / "a", Example("《Java程序》的作者是甲", triplets))
    (example,) = fix(path, FixSettings(absent_items=policy))  # type: ignore[arg-type]
    assert [triplet.key for triplet in example.triplets] == expected


def test_an_example_that_loses_all_its_triplets_is_no_negative(tmp_path: Path) -> None:
    path = write(tmp_path / "a", Example("x", (Triplet("丙", "r", "x"),)), Example("y"))
    assert fix(path, FixSettings(absent_items="drop")) == [Example("y")]
    listed = (tmp_path / "fixed.jsonl.problems.jsonl").read_text("utf-8").splitlines()
    assert [(p["line"], p["reason"]) for p in map(json.loads, listed)] == [
        (1, "item_not_in_text"),
        (1, "no_triplet_left"),
    ]


def test_damaged_characters_go_from_text_and_items_with_their_spans(tmp_path: Path) -> None:
    triplet = Triplet(
        "甲\ue313公司 ", "位于", "乙", subject_span=Span(1, 5), object_span=Span(7, 8)
    )
    path = write(tmp_path / "a", Example("\x08甲\ue313公司位于乙", (triplet, triplet)))
    (example,) = fix(path)
    assert example.to_record() == {
        "text": "甲公司位于乙",
        "triplets": [{"subject": "甲公司", "relation": "位于", "object": "乙"}],
    }


def test_text_of_nothing_but_damage_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a", Example("\ue313\ue314"), Example("好"))
    assert fix(path) == [Example("好")]


def test_turned_triplets_are_turned_back_with_a_schema(tmp_path: Path) -> None:
    turned = Triplet("甲", "作者", "书", subject_type="人", object_type="书名")
    path = write(tmp_path / "a", Example("甲写书", (turned,)))
    schema = RelationSchema((Relation("作者", (("书名", "人"),)),))
    (example,) = fix(path, FixSettings(schema=schema))
    (triplet,) = example.triplets
    assert (*triplet.key, triplet.subject_type, triplet.object_type) == (
        "书",
        "作者",
        "甲",
        "书名",
        "人",
    )


def test_clean_file_comes_back_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a", Example("甲位于乙", (A, B), "7"), Example("无"))
    fix(path)
    assert (tmp_path / "fixed.jsonl").read_bytes() == path.read_bytes()
    assert not (tmp_path / "fixed.jsonl.problems.jsonl").exists()


def test_files_read_are_never_overwritten(tmp_path: Path) -> None:
    path, dev = write(tmp_path / "a", Example("x")), write(tmp_path / "b", Example("y"))
    for target in (path, dev):
        with pytest.raises(ConfigError, match="is one of the files read"):
            fix_file(path, target, against=[dev])


def test_file_without_a_usable_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"text": "", "triplets": []}', encoding="utf-8")
    with pytest.raises(DataError, match="no record that can be used"):
        fix(path)
