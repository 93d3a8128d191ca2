"""The table of formats, and how a file finds its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tripletune.data.readers.annotation import (
    parse_dump_record,
    parse_offset_record,
    parse_relation_record,
    parse_span_record,
)
from tripletune.data.readers.brat import read_brat, score_brat
from tripletune.data.readers.canonical import parse_canonical_record
from tripletune.data.readers.columnar import (
    clean_row,
    iter_arrow_rows,
    iter_parquet_rows,
    score_dataset,
    score_parquet,
)
from tripletune.data.readers.conversation import (
    parse_messages_record,
    parse_prompt_record,
    parse_sharegpt_record,
)
from tripletune.data.readers.document_tree import parse_document_record
from tripletune.data.readers.formats import Format, Matches, build_json_format, parse_values
from tripletune.data.readers.iepile import parse_iepile_record
from tripletune.data.readers.instruction import parse_context_record, parse_instruction_record
from tripletune.data.readers.problem import Problems, shorten
from tripletune.data.readers.prose import parse_prose_record
from tripletune.data.readers.source import Head
from tripletune.data.readers.spo import parse_spo_record
from tripletune.data.readers.table import (
    has_row_fields,
    parse_row_record,
    read_csv,
    read_masked,
    read_tsv,
    score_csv,
    score_masked,
    score_tsv,
)
from tripletune.data.readers.uie import parse_uie_record
from tripletune.errors import DataError
from tripletune.schema import Example

__all__ = ["FORMATS", "get_format", "parse_rows", "recognise_format", "recognise_records"]

_HEAD_ROWS = 20
_AS_SCHEMA = "name it as the schema (--schema) instead"
_LABEL_LINE = re.compile(r"\S.{0,60}[\s,]\d+\s*\Z")
_PACKED = {b"PK": "a ZIP or Excel file", b"\x1f\x8b": "a gzip file"}


def _has(*names: str) -> Matches:
    return lambda record: all(name in record for name in names)


def _has_offsets(record: Mapping[str, Any]) -> bool:
    entries = record.get("spo_list")
    first = entries[0] if isinstance(entries, list) and entries else None
    return "text" in record and isinstance(first, Mapping) and "h" in first


def _has_spo(record: Mapping[str, Any]) -> bool:
    return "text" in record and "spo_list" in record and not _has_offsets(record)


def _has_dump(record: Mapping[str, Any]) -> bool:
    return "text" in record and ("triple_list_gold" in record or "triple_list" in record)


def _has_iepile(record: Mapping[str, Any]) -> bool:
    question = record.get("instruction")
    return (
        isinstance(question, str)
        and question.lstrip().startswith("{")
        and ("output" in record or "label" in record)
        and "input" not in record
    )


def _has_prompt(record: Mapping[str, Any]) -> bool:
    return "prompt" in record and ("response" in record or "completion" in record)


def _read_parquet(path: Path, problems: Problems) -> Iterator[Example]:
    return parse_rows(iter_parquet_rows(path), problems)


def _read_dataset(path: Path, problems: Problems) -> Iterator[Example]:
    return parse_rows(iter_arrow_rows(path), problems)


FORMATS: tuple[Format, ...] = (
    build_json_format(
        "canonical",
        '{"text", "triplets": [{"subject", "relation", "object"}]}',
        _has("text", "triplets"),
        parse_canonical_record,
        fields=("text", "triplets"),
    ),
    build_json_format(
        "spo_list",
        '{"text", "spo_list": [{"subject", "predicate", "object"}]} (DuIE, CMeIE)',
        _has_spo,
        parse_spo_record,
        fields=("text", "spo_list"),
    ),
    build_json_format(
        "offsets",
        '{"text", "spo_list": [{"h": {"name", "pos"}, "t": {...}, "relation"}]}',
        _has_offsets,
        parse_offset_record,
        fields=("text", "spo_list"),
    ),
    build_json_format(
        "doccano",
        '{"text", "entities": [{"id", "start_offset", "end_offset"}], "relations": [{"from_id", '
        '"to_id", "type"}]}',
        _has("text", "entities", "relations"),
        parse_span_record,
        fields=("text", "entities", "relations"),
    ),
    build_json_format(
        "triple_list",
        '{"text", "triple_list"} or {"text", "triple_list_gold"} (CasRel)',
        _has_dump,
        parse_dump_record,
        fields=("text", "triple_list"),
    ),
    build_json_format(
        "relation_list",
        '{"text", "relation": [{"head", "relation", "tail"}]} (DeepKE)',
        lambda record: "text" in record and isinstance(record.get("relation"), list),
        parse_relation_record,
        fields=("text", "relation"),
    ),
    build_json_format(
        "iepile",
        '{"instruction", "output"} where both are JSON texts (IEPile, OneKE)',
        _has_iepile,
        parse_iepile_record,
        fields=("instruction", "output"),
        is_grouped=True,
    ),
    build_json_format(
        "instruction",
        '{"instruction", "input", "output"} with an output of triplets',
        _has("input", "output"),
        parse_instruction_record,
        fields=("instruction", "input", "output"),
    ),
    build_json_format(
        "context",
        '{"context", "target"} with a target of triplets as JSON',
        _has("context", "target"),
        parse_context_record,
        fields=("context", "target"),
    ),
    build_json_format(
        "messages",
        '{"messages": [{"role", "content"}]} with an answer of triplets',
        _has("messages"),
        parse_messages_record,
        fields=("messages",),
    ),
    build_json_format(
        "sharegpt",
        '{"conversations": [{"from", "value"}]} with an answer of triplets',
        _has("conversations"),
        parse_sharegpt_record,
        fields=("conversations",),
    ),
    build_json_format(
        "prompt",
        '{"prompt", "response"} with question and text in the prompt',
        _has_prompt,
        parse_prompt_record,
        fields=("prompt", "response"),
    ),
    build_json_format(
        "prose",
        '{"input", "target"} with answers in sentences (PromptCBLUE)',
        _has("input", "target"),
        parse_prose_record,
        fields=("input", "target"),
    ),
    build_json_format(
        "uie",
        '{"content", "result_list", "prompt"} (UIE)',
        _has("content", "result_list", "prompt"),
        parse_uie_record,
        fields=("content", "result_list", "prompt"),
        is_grouped=True,
    ),
    build_json_format(
        "diakg",
        '{"paragraphs": [{"paragraph", "sentences": [{"entities", "relations"}]}]}',
        _has("paragraphs"),
        parse_document_record,
        fields=("paragraphs",),
    ),
    build_json_format(
        "rows",
        '{"text", "subject", "relation", "object"}, one triplet a record',
        has_row_fields,
        parse_row_record,
        fields=("text", "subject", "relation", "object"),
        is_grouped=True,
    ),
    Format("tsv", "lines 'subject<TAB>object<TAB>relation<TAB>sentence'", score_tsv, read_tsv),
    Format("masked", "lines 'label subject$object$sentence' with masks", score_masked, read_masked),
    Format(
        "csv", "a table whose header names text, subject, relation, object", score_csv, read_csv
    ),
    Format("brat", "a folder of .ann and .txt pairs, or one pair", score_brat, read_brat),
    Format("parquet", "a Parquet file with rows of any format above", score_parquet, _read_parquet),
    Format("dataset", "a folder saved by datasets.save_to_disk", score_dataset, _read_dataset),
)
"""Every format, in the order of preference where two fit a file equally well."""


def get_format(name: str) -> Format:
    """The format of that name.

    Raises:
        DataError: there is none.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in FORMATS)
    raise DataError(f"format: {name!r} is unknown; accepted are {names}")


def recognise_format(head: Head) -> Format:
    """The format that fits most records at the head of a file.

    Raises:
        DataError: none fits.
    """
    scores = [known.score(head) for known in FORMATS]
    best = max(scores)
    if best:
        return FORMATS[scores.index(best)]
    raise DataError(_describe_unknown(head), path=head.path)


def recognise_records(records: Sequence[Mapping[str, Any]]) -> Format | None:
    """The format of JSON records that fits most of them, or None."""
    best, best_score = None, 0
    for known in FORMATS:
        score = 0 if known.form is None else sum(map(known.form.matches, records))
        if score > best_score:
            best, best_score = known, score
    return best


def parse_rows(rows: Iterable[Mapping[str, Any]], problems: Problems) -> Iterator[Example]:
    """The examples of rows in memory, such as a Hugging Face `Dataset`, recognised by content.

    Raises:
        DataError: there are no rows, or no format fits them.
    """
    iterator = iter(rows)
    head = [clean_row(row) for row in islice(iterator, _HEAD_ROWS)]
    if not head:
        raise DataError("holds no rows; needed is at least one record", path=problems.path)
    known = recognise_records(head)
    if known is None or known.form is None:
        unknown = Head(problems.path, (), tuple(head))
        raise DataError(_describe_unknown(unknown), path=problems.path)
    values = enumerate(chain(head, map(clean_row, iterator)), 1)
    return parse_values(
        known.form, f"format {known.name!r} needs {known.description}", values, problems
    )


def _describe_unknown(head: Head) -> str:
    names = ", ".join(known.name for known in FORMATS)
    remedy = f"known formats are {names}. Bring it into one of these"
    if head.path.is_dir():
        return f"is a folder and holds neither brat files nor a saved data set; {remedy}"
    first = next((record for record in head.records if isinstance(record, Mapping)), None)
    if head.magic[:2] in _PACKED:
        return f"is {_PACKED[head.magic[:2]]}, not text; unpack it or save it as CSV or JSON lines"
    if head.fault:
        return f"is of no known format, and {head.fault}"
    if first is None:
        line = head.lines[0] if head.lines else ""
        if len(head.lines) > 1 and all(map(_LABEL_LINE.match, head.lines)):
            return f"is a relation schema (a table of labels), not data; {_AS_SCHEMA}"
        return f"is of no known format: the first line is {shorten(line)}; {remedy}"
    present = set(first)
    if {"predicate", "subject_type", "object_type"} <= present:
        return f"is a relation schema, not data; {_AS_SCHEMA}"
    forms = [(known, known.form) for known in FORMATS if known.form is not None]
    near, form = max(forms, key=lambda pair: len(present & set(pair[1].fields)))
    lacking = [name for name in form.fields if name not in present]
    missing = ""
    if present & set(form.fields) and lacking:
        missing = f"; for {near.name} {near.description} it lacks {', '.join(map(repr, lacking))}"
    fields = ", ".join(map(repr, first)) or "none"
    return f"is of no known format: the first record has the fields {fields}{missing}; {remedy}"
