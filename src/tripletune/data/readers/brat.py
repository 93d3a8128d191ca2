r"""Brat standoff: a folder of `.ann` and `.txt` pairs, or one such pair.

Lines read are entities (`T1\tType start end\ttext`, also discontinuous `start end;start end`) and
binary relations (`R1\tType Arg1:T1 Arg2:T2`). Coreference, events, attributes and notes have no
triplet form and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tripletune.data.readers.fields import add_triplet, build_example
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.data.readers.source import Head, check_file, iter_lines
from tripletune.errors import DataError
from tripletune.schema import Example, Span, Triplet

__all__ = ["read_brat", "score_brat"]

_ENTITY = re.compile(
    r"\A(?P<id>T\S*)\t(?P<type>\S+) (?P<ranges>\d+ \d+(?:;\d+ \d+)*)(?:\t(?P<text>.*))?\Z"
)
_RELATION = re.compile(
    r"\A(?P<id>R\S*)\t(?P<type>\S+) (?P<first>[^:\s]+):(?P<subject>\S+) "
    r"(?P<second>[^:\s]+):(?P<object>\S+)\s*\Z"
)
_LEFT_OUT = {"*": "coreference", "E": "event", "A": "attribute", "M": "attribute", "#": "note",
             "N": "normalisation"}  # fmt: skip


class _Mention(NamedTuple):
    name: str
    kind: str
    span: Span | None


def score_brat(head: Head) -> int:
    """How well a path fits: a folder of `.ann` files, or lines of standoff annotation."""
    if head.path.is_dir():
        return len(_list_annotations(head.path))
    lines = sum(_ENTITY.match(line) is not None or _RELATION.match(line) is not None
                for line in head.lines)  # fmt: skip
    if lines == 0 and head.path.suffix == ".txt" and head.path.with_suffix(".ann").is_file():
        return 1
    return lines


def read_brat(path: Path, problems: Problems) -> Iterator[Example]:
    """One example a document; entity types are kept, and spans of entities in one piece.

    Raises:
        DataError: the folder holds no `.ann` file, or a document lacks its `.txt`.
    """
    if not path.is_dir():
        yield from _read_document(path.with_suffix(".ann"), problems)
        return
    documents = sorted(_list_annotations(path), key=_natural_key)
    if not documents:
        raise DataError("holds no .ann file; needed are .ann and .txt pairs", path=path)
    for document in documents:
        yield from _read_document(document, problems, folder=path)


def _list_annotations(folder: Path) -> list[Path]:
    """The `.ann` files of a folder, or of the folders in it (Training, Testing) if it has none."""
    return list(folder.glob("*.ann")) or list(folder.glob("*/*.ann"))


def _read_document(
    annotation: Path, problems: Problems, *, folder: Path | None = None
) -> Iterator[Example]:
    problems.path, problems.num_lost_triplets = annotation, 0
    text_path = annotation.with_suffix(".txt")
    check_file(text_path)
    problems.line = None
    try:
        text = text_path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.drop_record(
            "not_utf8", f"{text_path.name}: byte {error.start} is not UTF-8; save it as UTF-8"
        )
        return
    mentions: dict[str, _Mention] = {}
    relations: list[tuple[int, re.Match[str]]] = []
    num_lost_relations = 0
    lines = iter_lines(annotation, problems) if annotation.stat().st_size else iter(())
    for number, line in lines:
        entity, relation = _ENTITY.match(line), _RELATION.match(line)
        if entity is not None:
            _add_mention(mentions, entity, text, problems)
        elif relation is not None:
            relations.append((number, relation))
        elif line[0] in _LEFT_OUT:
            problems.tallies[f"{_LEFT_OUT[line[0]]} lines left out"] += 1
        else:
            num_lost_relations += line.startswith("R")
            problems.drop_triplet(
                "unreadable_annotation",
                f"{shorten(line)} is no annotation line; needed is 'T1<TAB>Type start end<TAB>text'"
                " or 'R1<TAB>Type Arg1:T1 Arg2:T2'",
                value=line,
            )
    # An entity that cannot be used costs a triplet only where a relation names it.
    problems.num_lost_triplets = num_lost_relations
    try:
        triplets = _build_triplets(mentions, relations, problems)
        name = annotation.relative_to(folder or annotation.parent).with_suffix("")
        example = build_example(problems, text, triplets, name.as_posix())
    except RecordFault as fault:
        problems.drop_record(fault.reason, fault.message)
        return
    problems.line = 1
    yield example


def _add_mention(
    mentions: dict[str, _Mention], match: re.Match[str], text: str, problems: Problems
) -> None:
    ranges = [_read_range(part) for part in match.group("ranges").split(";")]
    if any(not start < end <= len(text) for start, end in ranges):
        problems.drop_triplet(
            "bad_offset",
            f"{match.group('id')} at {match.group('ranges')} is outside the text of {len(text)} "
            "characters",
            value=match.group(),
        )
        return
    ranges = _join_ranges(ranges, text)
    # Brat writes line breaks inside an annotation as spaces.
    name = " ".join(text[start:end] for start, end in ranges)
    stated = match.group("text")
    span = Span(*ranges[0]) if len(ranges) == 1 else None
    if stated is not None and "".join(stated.split()) != "".join(name.split()):
        # Line ends or a byte order mark changed after annotation shift every offset.
        is_shifted = bool(stated.strip()) and stated in text
        problems.change(
            "offset_mismatch",
            f"{match.group('id')}: the text holds {shorten(name)}, the annotation says "
            f"{shorten(stated)}; "
            + ("the annotation counts, its span is left out" if is_shifted else "the text counts"),
            value=match.group(),
        )
        if is_shifted:
            name, span = stated, None
    if not name.strip():
        problems.drop_triplet(
            "empty_item", f"{match.group('id')} covers only white space", value=match.group()
        )
        return
    mentions[match.group("id")] = _Mention(name, match.group("type"), span)


def _read_range(source: str) -> tuple[int, int]:
    start, _, end = source.partition(" ")
    # A longer number lies outside any text; Python refuses to convert very long ones.
    return int(start[:18]), int(end[:18])


def _join_ranges(ranges: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """The ranges, those with only white space between them (a wrapped line) made one."""
    joined = ranges[:1]
    for start, end in ranges[1:]:
        last_start, last_end = joined[-1]
        if last_end <= start and not text[last_end:start].strip():
            joined[-1] = (last_start, end)
        else:
            joined.append((start, end))
    return joined


def _build_triplets(
    mentions: dict[str, _Mention], relations: list[tuple[int, re.Match[str]]], problems: Problems
) -> list[Triplet]:
    triplets: list[Triplet] = []
    for number, match in relations:
        problems.line = number
        ends = match.group("subject", "object")
        if match.group("first", "second") == ("Arg2", "Arg1"):
            ends = ends[::-1]
        unknown = [name for name in ends if name not in mentions]
        if unknown:
            problems.drop_triplet(
                "unknown_entity",
                f"relation {match.group('id')} names {unknown[0]!r}, which is not annotated",
                value=match.group(),
            )
            continue
        subject, object_ = (mentions[name] for name in ends)
        add_triplet(
            triplets,
            problems,
            subject.name,
            match.group("type"),
            object_.name,
            subject_type=subject.kind,
            object_type=object_.kind,
            subject_span=subject.span,
            object_span=object_.span,
        )
    return triplets


def _natural_key(path: Path) -> tuple[str, int, str]:
    number = int(path.stem) if path.stem.isdecimal() else 1 << 62
    return (path.parent.name, number, path.name)
