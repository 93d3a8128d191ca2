from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers import detect_format, load_examples, read_examples
from tripletune.data.readers.problem import Problem
from tripletune.errors import DataError
from tripletune.schema import Span, Triplet

TEXT = "母亲在家\n乡。山”\n、“海”都在"
ANNOTATION = (
    "T1\tPerson 0 2\t母亲\n"
    "T2\tLocation 3 6\t家 乡\n"
    "T3\tThing 7 9;10 14\t山” 、“海”\n"
    "T4\tThing 0 1;7 8\t母 山\n"
    "*\tCoreference T1 T2\n"
    "R1\tLocated Arg1:T1 Arg2:T2\t\n"
    "R2\tNear Arg1:T3 Arg2:T4\n"
)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    (tmp_path / "1.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "1.ann").write_text(ANNOTATION, encoding="utf-8")
    return tmp_path


def test_brat_reads_wrapped_and_discontinuous_entities(document: Path) -> None:
    (example,) = load_examples(document)
    assert example.text == TEXT
    assert example.triplets == (
        Triplet("母亲", "Located", "家\n乡"),
        Triplet("山”\n、“海”", "Near", "母 山"),
    )
    first, second = example.triplets
    assert (first.subject_type, first.object_type) == ("Person", "Location")
    assert (first.object_span, second.subject_span, second.object_span) == (
        Span(3, 6),
        Span(7, 14),
        None,
    )


@pytest.mark.parametrize("name", ["1.ann", "1.txt"])
def test_brat_is_recognised_from_either_file(document: Path, name: str) -> None:
    assert detect_format(document / name).name == "brat"
    assert len(load_examples(document / name)[0].triplets) == 2


def test_brat_names_a_missing_text(document: Path) -> None:
    (document / "1.txt").unlink()
    with pytest.raises(DataError, match=r"1\.txt"):
        load_examples(document)


def test_brat_reports_each_line_it_cannot_use(document: Path) -> None:
    lines = "T9\tX 90 95\tz\nR3\tNear Arg1:T1 Arg2:T8\nnonsense\n"
    (document / "1.ann").write_text(ANNOTATION + lines, encoding="utf-8")
    found: list[Problem] = []
    (example,) = read_examples(document, on_problem=found.append)
    assert len(example.triplets) == 2
    assert sorted((p.reason, p.line) for p in found) == [
        ("bad_offset", 8),
        ("unknown_entity", 9),
        ("unreadable_annotation", 10),
    ]


def test_brat_text_counts_where_the_annotation_differs(document: Path) -> None:
    (document / "1.ann").write_text(ANNOTATION.replace("\t母亲", "\t父亲"), encoding="utf-8")
    found: list[Problem] = []
    (example,) = read_examples(document, on_problem=found.append)
    assert example.triplets[0].subject == "母亲"
    assert [(p.reason, p.action) for p in found] == [("offset_mismatch", "changed")]


def test_brat_annotation_counts_where_every_offset_is_shifted(document: Path) -> None:
    (document / "1.txt").write_text("　" + TEXT, encoding="utf-8")
    found: list[Problem] = []
    (example,) = read_examples(document, on_problem=found.append)
    assert example.triplets[0].key[0] == "母亲"
    assert example.triplets[0].subject_span is None
    assert ("offset_mismatch", 1) in [(p.reason, p.line) for p in found]


def test_brat_arguments_count_by_their_names(document: Path) -> None:
    turned = ANNOTATION.replace("Arg1:T1 Arg2:T2", "Arg2:T2 Arg1:T1")
    (document / "1.ann").write_text(turned, encoding="utf-8")
    assert load_examples(document)[0].triplets[0].key == ("母亲", "Located", "家\n乡")


def test_brat_folders_in_a_folder_are_read_and_named(tmp_path: Path) -> None:
    for name in ("Training", "Testing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text(name, encoding="utf-8")
        (tmp_path / name / "1.ann").write_text("", encoding="utf-8")
    examples = load_examples(tmp_path)
    assert [(e.id, e.text) for e in examples] == [
        ("Testing/1", "Testing"),
        ("Training/1", "Training"),
    ]


def test_brat_documents_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "b"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
        (tmp_path / f"{name}.ann").write_text("", encoding="utf-8")
    assert [example.id for example in load_examples(tmp_path)] == ["9", "10", "b"]


def test_brat_document_is_a_negative_unless_it_lost_a_relation(document: Path) -> None:
    lines = {"T9\tX 90 95\tz\n": 1, "R1\tNear Arg1:T1 Arg2:T8\n": 0, "R1 Near T1 T2\n": 0}
    for line, number in lines.items():
        (document / "1.ann").write_text("T1\tPerson 0 2\t母亲\n" + line, encoding="utf-8")
        found: list[Problem] = []
        examples = list(read_examples(document, on_problem=found.append))
        assert [example.triplets for example in examples] == [()] * number
        assert [p.reason for p in found][1:] == ([] if number else ["no_triplet_left"])
