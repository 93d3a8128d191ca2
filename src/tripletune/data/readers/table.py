"""Text tables: subject-object-relation-sentence rows as TSV or CSV, and rows with masked names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tripletune.data.readers.fields import add_triplet, build_example, get_field, get_text
from tripletune.data.readers.grouping import group_by_text
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.data.readers.source import Head, iter_lines, read_head
from tripletune.schema import Example, Triplet

__all__ = [
    "NO_RELATION",
    "has_row_fields",
    "parse_row_record",
    "read_csv",
    "read_masked",
    "read_tsv",
    "score_csv",
    "score_masked",
    "score_tsv",
]

NO_RELATION = frozenset(
    {"unknown", "Unknown", "NA", "N/A", "no_relation", "None", "none", "无关系", "无", "未知"}
)
"""Relation labels that mean: the pair was judged and stands in no relation."""

MASKED_RELATIONS = (
    "unknown", "夫妻", "父母", "兄弟姐妹", "上下级", "师生", "好友",
    "同学", "合作", "同人", "情侣", "祖孙", "同门", "亲戚",
)  # fmt: skip
"""What the label numbers of masked rows mean when no `relation2id.txt` lies beside the file."""

_COLUMNS = {
    "text": {"text", "sentence", "sent", "content", "文本", "句子", "原文", "正文", "内容"},
    "subject": {
        *("subject", "subj", "head", "head_entity", "entity1", "entity_1", "ent1", "e1"),
        *("主体", "主语", "头实体", "实体1", "人物1"),
    },
    "relation": {
        *("relation", "relation_type", "predicate", "rel", "label"),
        *("关系", "关系类型", "谓语", "谓词", "标签"),
    },
    "object": {
        *("object", "obj", "tail", "tail_entity", "entity2", "entity_2", "ent2", "e2"),
        *("客体", "宾语", "尾实体", "实体2", "人物2"),
    },
    "subject_type": {"subject_type", "head_type", "主体类型", "头实体类型"},
    "object_type": {"object_type", "tail_type", "客体类型", "尾实体类型"},
}
_NEEDED = ("text", "subject", "relation", "object")
_PLAIN_ORDER = {"subject": 0, "object": 1, "relation": 2, "text": 3}
_NUMBERED = re.compile(r"(?P<kind>\D+?)[12]\Z")
_COLUMN_NAME = re.compile(r"[A-Za-z]\w{0,30}\Z", re.ASCII)
_UNTYPED = frozenset({"实体", "entity", "entity_", "ent", "e", "名称", "name"})
_MASKED = re.compile(r"\A(?P<label>\S+) (?P<names>[^$\n]+\$[^$\n]+)\$(?P<text>.*)\Z")
_MASK_RUN = re.compile(r"#+")
Columns = dict[str, int]


def score_tsv(head: Head) -> int:
    """How many of the first lines split at tabs into four cells or into the header's number."""
    header = _read_header(head.lines[0].split("\t")) if head.lines else None
    width = len(head.lines[0].split("\t")) if header else 4
    if head.records and any(isinstance(record, dict) for record in head.records):
        return 0
    return sum(len(line.split("\t")) == width >= 4 for line in head.lines)


def score_csv(head: Head) -> int:
    """The number of first lines, when the first names the columns of a CSV file."""
    if not head.lines or head.lines[0].lstrip().startswith(("{", "[")):
        return 0
    try:
        cells = next(csv.reader([head.lines[0]]), [])
    except csv.Error:
        return 0
    return len(head.lines) if _read_header(cells) else 0


def score_masked(head: Head) -> int:
    """How many of the first lines read `label subject$object$sentence`."""
    return sum(_MASKED.match(line) is not None and "#" in line for line in head.lines)


def read_tsv(path: Path, problems: Problems) -> Iterator[Example]:
    """Examples from rows `subject, object, relation, sentence`, or as the header names them.

    Without a header, `subject, relation, object, sentence` is told by what stands in the sentences.

    Rows of one sentence become one example; a pair labelled unknown gives it no triplet.
    """
    return group_by_text(_iter_tsv(path, problems), problems)


def read_csv(path: Path, problems: Problems) -> Iterator[Example]:
    """Examples from the rows of a CSV file with a header; quoted cells may hold line breaks."""
    return group_by_text(_iter_csv(path, problems), problems)


def read_masked(path: Path, problems: Problems) -> Iterator[Example]:
    """Examples from rows `label subject$object$sentence` whose names are masked by as many #.

    Names are put back where the lengths tell which mask is whose. Two names of one length cannot
    be told apart: such rows are left out. Label numbers are named by a `relation2id.txt` beside
    the file, or else as in the published set of relations between people.
    """
    return group_by_text(_iter_masked(path, problems), problems)


def parse_row_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one `{"text", "subject", "relation", "object"}` record, types if given.

    The fields may have any of the names that the columns of a table may have.
    """
    keys = list(record)
    columns = _read_header(keys) or {}
    row = {name: record[keys[place]] for name, place in columns.items()} or record
    items = [get_field(row, name) for name in ("subject", "relation", "object")]
    types = {name: row.get(name) or "" for name in ("subject_type", "object_type")}
    triplets: list[Triplet] = []
    if (not isinstance(items[1], str) or items[1] not in NO_RELATION) and any(items):
        add_triplet(triplets, problems, *items, **types)
    yield build_example(problems, get_text(row, "text"), triplets, record.get("id"))


def has_row_fields(record: Mapping[str, Any]) -> bool:
    """Whether the fields of a record are the columns of a table with one triplet a row."""
    keys = list(record)
    columns = _read_header(keys)
    return columns is not None and not isinstance(record[keys[columns["relation"]]], (list, dict))


def _iter_tsv(path: Path, problems: Problems) -> Iterator[Example]:
    columns: Columns | None = None
    kinds: dict[str, str] = {}
    width = len(_PLAIN_ORDER)
    for _, line in iter_lines(path, problems):
        cells = line.split("\t")
        if columns is None:
            columns = _read_header(cells)
            if columns is not None:
                width, kinds = len(cells), _read_kinds(cells, columns)
                continue
            columns = _find_plain_order(path, problems)
            if _is_unknown_header(cells, problems):
                continue
        yield from _read_row(cells, columns, width, kinds, problems)


def _is_unknown_header(cells: list[str], problems: Problems) -> bool:
    """Whether a first row holds names of columns, some of them unknown; it is reported then."""
    if not all(map(_COLUMN_NAME.match, cells)) or cells[0] in cells[-1]:
        return False
    known = "; ".join(f"{name}: {', '.join(sorted(_COLUMNS[name]))}" for name in _NEEDED)
    problems.drop_record(
        "unknown_header",
        f"the first row {shorten(cells)} reads like the names of columns, but not of all that are "
        f"needed; known are {known}",
        value=cells,
    )
    return True


def _find_plain_order(path: Path, problems: Problems) -> Columns:
    """The columns of rows without a header: relations repeat, and seldom stand in the sentence."""
    rows = [line.split("\t") for line in read_head(path).lines]
    rows = [cells for cells in rows if len(cells) == len(_PLAIN_ORDER)]
    found = [sum(cells[place] in cells[3] for cells in rows) for place in (1, 2)]
    different = [len({cells[place] for cells in rows}) for place in (1, 2)]
    if found[0] > found[1] or (found[0] == found[1] and 2 * different[0] > different[1]):
        return _PLAIN_ORDER
    problems.change(
        "column_order",
        "the second cells look like relations and the third ones stand in the sentences, so the "
        "columns are read as subject, relation, object, sentence",
    )
    return {**_PLAIN_ORDER, "relation": 1, "object": 2}


def _iter_csv(path: Path, problems: Problems) -> Iterator[Example]:
    lines = (line for _, line in iter_lines(path, problems))
    rows = csv.reader((line + "\n" for line in lines), strict=True)
    columns: Columns | None = None
    kinds: dict[str, str] = {}
    width = 0
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            problems.drop_record("broken_csv", f"row cannot be read as CSV: {error}")
            continue
        if cells is None:
            return
        if columns is None:
            columns, width = _read_header(cells), len(cells)
            if columns is None:
                problems.drop_record(
                    "missing_column",
                    f"header {shorten(cells)} lacks a column; needed are text, subject, relation "
                    "and object (文本, 主体, 关系, 客体)",
                    value=cells,
                )
                return
            kinds = _read_kinds(cells, columns)
            continue
        yield from _read_row(cells, columns, width, kinds, problems)


def _read_row(
    cells: list[str], columns: Columns, width: int, kinds: dict[str, str], problems: Problems
) -> Iterator[Example]:
    if len(cells) != width:
        problems.drop_record(
            "wrong_number_of_cells",
            f"{shorten(cells)} has {len(cells)} cells; needed are {width}",
            value=cells,
        )
        return
    problems.num_lost_triplets = 0
    row = {name: cells[place] for name, place in columns.items()}
    types = {
        "subject_type": row.get("subject_type") or kinds.get("subject", ""),
        "object_type": row.get("object_type") or kinds.get("object", ""),
    }
    triplets: list[Triplet] = []
    if row["relation"] not in NO_RELATION:
        items = (row["subject"], row["relation"], row["object"])
        if any(items):
            add_triplet(triplets, problems, *items, **types)
    try:
        yield build_example(problems, row["text"], triplets)
    except RecordFault as fault:
        problems.drop_record(fault.reason, fault.message, value=cells)


def _read_header(cells: list[str]) -> Columns | None:
    columns: Columns = {}
    for place, cell in enumerate(cells):
        name = cell.strip().lower()
        for column, names in _COLUMNS.items():
            if name in names and column not in columns:
                columns[column] = place
    return columns if all(name in columns for name in _NEEDED) else None


def _read_kinds(cells: list[str], columns: Columns) -> dict[str, str]:
    """The types that a header such as 人物1, 人物2 gives away."""
    kinds = {}
    for column in ("subject", "object"):
        match = _NUMBERED.match(cells[columns[column]].strip())
        if match is not None and match.group("kind").lower() not in _UNTYPED:
            kinds[column] = match.group("kind")
    return kinds


def _iter_masked(path: Path, problems: Problems) -> Iterator[Example]:
    names = _load_relation_names(path, problems)
    for _, line in iter_lines(path, problems):
        match = _MASKED.match(line)
        problems.num_lost_triplets = 0
        try:
            if match is None:
                raise RecordFault(
                    "not_masked_row", f"{shorten(line)} is not 'label subject$object$sentence'"
                )
            subject, object_ = match.group("names").split("$")
            text = _unmask(match.group("text"), subject, object_)
            relation = names.get(match.group("label"))
            if relation is None:
                raise RecordFault(
                    "unknown_label",
                    f"label {match.group('label')!r} has no name; known are {', '.join(names)}. "
                    "Put a relation2id.txt with lines 'name number' beside the file",
                )
            triplets: list[Triplet] = []
            if relation not in NO_RELATION:
                add_triplet(triplets, problems, subject, relation, object_)
            yield build_example(problems, text, triplets)
        except RecordFault as fault:
            problems.drop_record(fault.reason, fault.message, value=line)


def _unmask(text: str, subject: str, object_: str) -> str:
    if len(subject) == len(object_) and subject != object_:
        raise RecordFault(
            "ambiguous_mask",
            f"{subject!r} and {object_!r} are equally long, so the masks in {shorten(text)} cannot "
            "be told apart",
        )
    by_length = {len(subject): subject, len(object_): object_}
    for run in _MASK_RUN.findall(text):
        if len(run) not in by_length:
            raise RecordFault(
                "ambiguous_mask",
                f"a mask of {len(run)} in {shorten(text)} fits neither {subject!r} nor {object_!r}",
            )
    return _MASK_RUN.sub(lambda run: by_length[len(run.group())], text)


def _load_relation_names(path: Path, problems: Problems) -> dict[str, str]:
    table = path.with_name("relation2id.txt")
    if not table.is_file():
        problems.change(
            "label_numbers",
            "no relation2id.txt lies beside the file; label numbers are read as in the published "
            "set: " + ", ".join(f"{i} {name}" for i, name in enumerate(MASKED_RELATIONS)),
        )
        return {str(number): name for number, name in enumerate(MASKED_RELATIONS)}
    names: dict[str, str] = {}
    for _, line in iter_lines(table, Problems(table)):
        name, _, number = line.strip().rpartition("\t" if "\t" in line else " ")
        names[number.strip()] = name.strip()
    return names
