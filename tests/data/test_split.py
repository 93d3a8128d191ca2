from __future__ import annotations

import random
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tripletune.data.check import check_files
from tripletune.data.fingerprint import normalise_text
from tripletune.data.readers import load_examples
from tripletune.data.split import SplitMode, split_file
from tripletune.errors import ConfigError, DataError
from tripletune.schema import Example, Triplet

MODES: tuple[SplitMode, ...] = ("random", "stratified", "entity_disjoint")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """400 examples: 300 of a frequent relation, 60 of a rare one, 40 without, 20 texts twice."""
    rng = random.Random(5)
    examples = []
    for number in range(400):
        relation = "常见" if number < 300 else "少见"
        subject, object_ = f"甲{rng.randrange(250)}", f"乙{rng.randrange(250)}"
        triplets = (Triplet(subject, relation, object_),) if number < 360 else ()
        examples.append(Example(f"第{number}句{subject}和{object_}", triplets))
    examples[20:40] = [Example(e.text + "。", e.triplets) for e in examples[:20]]
    rng.shuffle(examples)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
    return path


def read_parts(folder: Path) -> dict[str, list[Example]]:
    return {path.stem: load_examples(path) for path in sorted(folder.glob("*.jsonl"))}


@pytest.mark.parametrize("mode", MODES)
def test_split_keeps_every_example_once_and_in_order(source: Path, mode: SplitMode) -> None:
    before = source.read_bytes()
    report = split_file(source, source.parent / "out", mode=mode)
    parts = read_parts(source.parent / "out")
    assert {name: len(part) for name, part in parts.items()} == report.counts
    whole = load_examples(source)
    order = {example.text: number for number, example in enumerate(whole)}
    numbers = [[order[example.text] for example in part] for part in parts.values()]
    assert sorted(chain.from_iterable(numbers)) == list(range(400))
    assert all(part == sorted(part) for part in numbers)
    assert source.read_bytes() == before


@pytest.mark.parametrize("mode", MODES)
def test_texts_equal_but_for_form_stay_together(source: Path, mode: SplitMode) -> None:
    split_file(source, source.parent / "out", mode=mode)
    owners: dict[str, set[str]] = {}
    for name, part in read_parts(source.parent / "out").items():
        for example in part:
            owners.setdefault(normalise_text(example.text), set()).add(name)
    assert len(owners) == 380
    assert all(len(names) == 1 for names in owners.values())


@pytest.mark.parametrize("mode", MODES)
def test_near_duplicates_stay_together(tmp_path: Path, mode: SplitMode) -> None:
    rng = random.Random(1)
    examples = []
    for number in range(100):
        text = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(60))
        for copy in range(3):
            # Each is like the one before, but the last no longer so much like the first.
            text = f"{text[:50]}{chr(0x9100 + 3 * number + copy)}"
            triplets = (Triplet(f"甲{number}", "r", f"乙{copy}"),) if number % 3 else ()
            examples.append(Example(text, triplets, id=str(number)))
    rng.shuffle(examples)
    source = tmp_path / "all.jsonl"
    source.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
    split_file(source, tmp_path / "near", mode=mode)
    split_file(source, tmp_path / "far", mode=mode, near_threshold=None)

    def count_torn(folder: Path) -> int:
        owners: dict[str | None, set[str]] = {}
        for name, part in read_parts(folder).items():
            for example in part:
                owners.setdefault(example.id, set()).add(name)
        return sum(len(parts) > 1 for parts in owners.values())

    assert count_torn(tmp_path / "near") == 0
    assert count_torn(tmp_path / "far") > 10
    counts = check_files([tmp_path / "near" / f"{p}.jsonl" for p in ("train", "test")]).counts
    assert counts["leak_near"] == 0


def test_stratified_parts_have_their_share_of_every_relation(source: Path) -> None:
    split_file(source, source.parent / "out", mode="stratified")
    parts = read_parts(source.parent / "out")
    counts = {
        name: Counter(e.triplets[0].relation if e.triplets else "" for e in part)
        for name, part in parts.items()
    }
    for relation, total in (("常见", 300), ("少见", 60), ("", 40)):
        for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
            assert abs(counts[name][relation] - share * total) <= 2


def test_entity_disjoint_parts_share_no_subject_or_object(source: Path) -> None:
    report = split_file(source, source.parent / "out", mode="entity_disjoint")
    parts = read_parts(source.parent / "out")
    entities = {
        name: {item for e in part for t in e.triplets for item in (t.subject, t.object)}
        for name, part in parts.items()
        if name != "left_out"
    }
    assert list(entities) == ["test", "train", "validation"]
    assert not entities["train"] & entities["validation"]
    assert not entities["train"] & entities["test"]
    assert not entities["validation"] & entities["test"]
    assert report.counts["train"] > 250
    assert min(report.counts["validation"], report.counts["test"]) >= 36


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_gives_the_same_parts_and_another_does_not(source: Path, mode: SplitMode) -> None:
    folders = [source.parent / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        split_file(source, folder, mode=mode, seed=seed)
    first, same, other = (read_parts(folder) for folder in folders)
    assert first == same
    assert first != other


def test_shares_and_names_are_free(source: Path) -> None:
    report = split_file(source, source.parent / "out", shares={"big": 3, "small": 1})
    assert list(report.counts) == ["big", "small"]
    assert abs(report.counts["small"] - 100) <= 3
    assert report.to_record()["counts"] == report.counts


@pytest.mark.parametrize(
    "shares", [{"train": 1.0}, {"train": 1.0, "test": 0.0}, {"train": 0.5, "left_out": 0.5}]
)
def test_shares_that_make_no_sense_are_named(source: Path, shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="two parts or more"):
        split_file(source, source.parent / "out", shares=shares)


@pytest.mark.parametrize("linked", [False, True])
def test_input_is_never_overwritten(source: Path, linked: bool) -> None:
    target = source.parent / "parts" / "train.jsonl"
    target.parent.mkdir()
    content = source.read_bytes()
    path = source if linked else target
    if linked:
        target.hardlink_to(source)
    else:
        source.rename(target)
    with pytest.raises(ConfigError, match=r"output: '.*train.jsonl' is one of the files read"):
        split_file(path, target.parent)
    assert path.read_bytes() == content


def test_too_few_texts_and_unknown_modes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "triplets": []}\n' * 5, encoding="utf-8")
    with pytest.raises(DataError, match="1 different texts, too few for 3"):
        split_file(path, tmp_path / "out")
    path.write_text("".join(f'{{"text": "a{i}", "triplets": []}}\n' for i in range(9)), "utf-8")
    with pytest.raises(ConfigError, match="'even' is unknown"):
        split_file(path, tmp_path / "out", mode="even")  # type: ignore[arg-type]
