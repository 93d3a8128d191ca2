"""Mutated files of every format give examples or named errors, and nothing else."""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tripletune.data.readers import FORMATS, read_examples
from tripletune.data.readers.problem import Problem
from tripletune.errors import DataError
from tripletune.schema import Example

NUM_LINES = 10_000
# Of formats in columns, each case is a file of its own; TRIPLETUNE_FUZZ_FILES=10000 tests as many
# of them as of lines, in about two minutes.
NUM_FILES = int(os.environ.get("TRIPLETUNE_FUZZ_FILES", "500"))
ITEM = {"subject": "甲", "relation": "位于", "object": "乙_丙"}
OFFSETS = {"h": {"name": "甲", "pos": [0, 1]}, "t": {"name": "乙", "pos": [3, 4]}, "relation": "r"}
SPANS = [{"id": i, "start_offset": i, "end_offset": i + 1, "label": "x"} for i in (0, 1)]
QUESTION = json.dumps(
    {"instruction": "抽取", "schema": ["r"], "input": "甲位于乙"}, ensure_ascii=False
)
SEEDS: dict[str, str] = {
    "canonical": json.dumps(
        {"text": "甲位于乙", "triplets": [{**ITEM, "subject_span": [0, 1], "confidence": 0.5}]}
    ),
    "spo_list": json.dumps(
        {
            "text": "甲位于乙",
            "spo_list": [
                {
                    "predicate": "r",
                    "subject": "甲",
                    "subject_type": "A",
                    "object": {"@value": "乙", "onDate": "d"},
                    "object_type": {"@value": "B"},
                    "Combined": True,
                }
            ],
        },
        ensure_ascii=False,
    ),
    "offsets": json.dumps({"ID": "1", "text": "甲位于乙", "spo_list": [OFFSETS]}),
    "doccano": json.dumps(
        {
            "id": 1,
            "text": "甲乙",
            "entities": SPANS,
            "relations": [{"id": 0, "from_id": 0, "to_id": 1, "type": "r"}],
        }
    ),
    "triple_list": json.dumps({"text": "甲", "triple_list_gold": [ITEM, ["a", "r", "b"]]}),
    "relation_list": json.dumps(
        {"text": "甲", "relation": [{"head": "a", "relation": "r", "tail": "b", "head_type": "A"}]}
    ),
    "iepile": json.dumps(
        {
            "instruction": QUESTION,
            "output": '{"r": [{"head": "a", "tail": "b"}], "A": {"甲": {"x": "y"}}}',
        },
        ensure_ascii=False,
    ),
    "instruction": json.dumps(
        {
            "instruction": '抽取"r"',
            "input": "甲位于乙",
            "output": "(甲, 位于, 乙)\n（丙，位于，丁）",
        },
        ensure_ascii=False,
    ),
    "context": json.dumps(
        {
            "context": "Instruction: x\nInput: q：\n\n甲位于乙\nAnswer: ",
            "target": "```json\n" + json.dumps([ITEM]) + "\n```",
        },
        ensure_ascii=False,
    ),
    "messages": json.dumps(
        {
            "messages": [
                {"role": "user", "content": "抽取:\n甲位于乙"},
                {"role": "assistant", "content": "甲_位于_乙"},
            ]
        },
        ensure_ascii=False,
    ),
    "sharegpt": json.dumps(
        {
            "conversations": [
                {"from": "human", "value": "抽:\n甲"},
                {"from": "gpt", "value": "(甲, 位于, 甲)"},
            ]
        }
    ),
    "prompt": json.dumps({"prompt": "抽取:\n甲位于乙", "response": "(甲, 位于, 乙)"}),
    "prose": json.dumps(
        {"input": "甲。\n答：", "target": "具有r关系的头尾实体对如下：头实体为甲，尾实体为乙。"},
        ensure_ascii=False,
    ),
    "uie": json.dumps(
        {
            "content": "书的作者是甲",
            "prompt": "书的作者",
            "result_list": [{"text": "甲", "start": 5, "end": 6}],
        },
        ensure_ascii=False,
    ),
    "diakg": json.dumps(
        {
            "doc_id": "1",
            "paragraphs": [
                {
                    "paragraph": "甲",
                    "sentences": [
                        {
                            "entities": [{"entity_id": "T0", "entity": "甲", "entity_type": "A"}],
                            "relations": [
                                {
                                    "relation_type": "r",
                                    "head_entity_id": "T0",
                                    "tail_entity_id": "T0",
                                }
                            ],
                        }
                    ],
                }
            ],
        },
        ensure_ascii=False,
    ),
    "rows": json.dumps({"text": "t", "subject": "a", "relation": "r", "object": "b"}),
    "tsv": "甲\t乙\t收购\t甲收购乙",
    "masked": "1 张三$欧阳锋$##与###结婚",
    "csv": '"甲,位于乙",甲,位于,乙',
    "brat": "T1\tA 0 1;2 3\t甲 乙\nR1\tr Arg1:T1 Arg2:T1",
}
"""One line of every line format, of brat one of each kind; Parquet and saved data sets have files
of their own below."""

VALUES = [
    "null",
    "[]",
    "{}",
    '""',
    '" "',
    "0",
    "-1",
    "1e999",
    "true",
    '"\\ud800"',
    "[[]]",
    '{"a":1}',
]


def mutate(rng: random.Random, line: str) -> bytes:
    """The line with one to three random changes, some of them aware of JSON."""
    raw = line.encode()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(raw) + 1)
        choice = rng.randrange(7)
        if choice == 0:
            raw = raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]
        elif choice == 1:
            raw = raw[:place] + raw[place + rng.randint(1, 8) :]
        elif choice == 2:
            raw = (
                raw[:place]
                + rng.choice((b'"', b"\\", b"{", b"]", b"\t", b"$", b"_", b","))
                + raw[place:]
            )
        elif choice == 3:
            end = min(len(raw), place + rng.randint(1, 20))
            raw = raw[:end] + raw[place:end] + raw[end:]
        elif choice == 4:
            raw = raw[:place]
        else:
            raw = _replace_value(rng, raw)
    return raw.replace(b"\n", b" ").replace(b"\r", b" ")


def _replace_value(rng: random.Random, raw: bytes) -> bytes:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return raw[: rng.randrange(len(raw) + 1)]
    places: list[tuple[object, object]] = []
    _collect(value, places)
    if not places:
        return raw
    container, key = rng.choice(places)
    new = rng.choice([*map(json.loads, VALUES), "9" * 30])
    if isinstance(container, dict) and rng.random() < 0.3:
        container[f"{key}x"] = container.pop(key)
    else:
        container[key] = new  # type: ignore[index]
    return json.dumps(value).encode()


def _collect(value: object, places: list[tuple[object, object]]) -> None:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        places.append((value, key))
        _collect(item, places)


def read_all(path: Path, name: str | None) -> tuple[list[Example], list[Problem]]:
    problems: list[Problem] = []
    try:
        examples = list(read_examples(path, format=name, on_problem=problems.append))
    except DataError:
        return [], problems
    for example in examples:
        example.to_json().encode("utf-8")
    for problem in problems:
        json.dumps(problem.to_record(), ensure_ascii=False).encode("utf-8")
    return examples, problems


def write_lines(folder: Path, name: str, lines: list[bytes]) -> Path:
    if name == "brat":
        (folder / "x.txt").write_text("甲乙丙丁\n戊", encoding="utf-8")
        path = folder / "x.ann"
    else:
        path = folder / "x"
    header = [b"text,subject,relation,object"] if name == "csv" else []
    path.write_bytes(b"\n".join(header + lines))
    return path


def test_every_line_format_is_fuzzed() -> None:
    assert set(SEEDS) == {known.name for known in FORMATS} - {"parquet", "dataset"}


@pytest.mark.parametrize("name", SEEDS)
def test_seed_line_itself_gives_an_example(tmp_path: Path, name: str) -> None:
    examples, problems = read_all(write_lines(tmp_path, name, [SEEDS[name].encode()]), name)
    assert len(examples) == 1
    assert not any(p.action == "dropped record" for p in problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_mutated_lines_give_examples_or_named_problems(tmp_path: Path, name: str) -> None:
    rng = random.Random(f"fuzz {name}")
    seeds = SEEDS[name].split("\n")
    lines = [mutate(rng, rng.choice(seeds)) for _ in range(NUM_LINES)]
    examples, problems = read_all(write_lines(tmp_path, name, lines), name)
    # Formats that join records of one text have few texts here, and brat has one.
    assert len(examples) >= (1 if name == "brat" else 10)
    assert any(example.triplets for example in examples)
    assert len(problems) > 50


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_heads_and_documents_give_examples_or_named_errors(
    tmp_path: Path, name: str
) -> None:
    rng = random.Random(f"head {name}")
    forms: list[Callable[[list[bytes]], bytes]] = [
        b"\n".join,
        lambda lines: b"[" + b",\n".join(lines) + b"]",
        lambda lines: b"[" + b",\n".join(lines),
        lambda lines: b"\r\n\r\n".join(lines).replace(b",", b",\n"),
    ]
    path = tmp_path / "x"
    for round_number in range(60):
        seeds = SEEDS[name].split("\n")
        lines = [mutate(rng, rng.choice(seeds)) for _ in range(rng.randint(1, 4))]
        path.write_bytes(forms[round_number % 4](lines))
        read_all(path, None)


JSON_SEEDS = [line for line in SEEDS.values() if line.startswith("{")]
CELLS: list[object] = [
    *(None, True, -1, 2**62, float("nan"), float("inf"), "", " ", [], {}, [[]], {"a": 1}),
    *(b"\xff\xfe", "乙".encode(), Decimal("1.5")),
    *(datetime(2020, 1, 1), datetime(2020, 1, 1).date(), datetime(2020, 1, 1).time(), timedelta(1)),
]


def write_columns(table: pyarrow.Table, path: Path, kind: str) -> Path:
    """Writes a Parquet file, or the folder of a saved data set; gives the file with the rows."""
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
        return path
    path.mkdir(exist_ok=True)
    (path / "dataset_info.json").write_text("{}", encoding="utf-8")
    file = path / "data-00000-of-00001.arrow"
    with (
        pyarrow.OSFile(str(file), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return file


def mutate_cells(rng: random.Random) -> pyarrow.Table:
    """One row of some format with values of types that JSON does not have, as a table."""
    while True:
        row = json.loads(rng.choice(JSON_SEEDS))
        for _ in range(rng.randint(1, 3)):
            places: list[tuple[object, object]] = []
            _collect(row, places)
            container, key = rng.choice(places)
            if isinstance(container, dict) and rng.random() < 0.3:
                container[f"{key}x"] = container.pop(key)
            else:
                container[key] = copy.deepcopy(rng.choice(CELLS))  # type: ignore[index]
        try:
            return pyarrow.Table.from_pylist([row])
        except (pyarrow.ArrowException, OverflowError, ValueError):
            continue  # Not every row has a type that columns can have.


def mutate_bytes(rng: random.Random, intact: bytes) -> bytes:
    raw = bytearray(intact)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(raw))
        choice = rng.randrange(4)
        if choice == 0:
            raw[place] = rng.randrange(256)
        elif choice == 1:
            raw = raw[: place + 1]
        elif choice == 2:
            raw[place : place + rng.randint(1, 16)] = b""
        else:
            raw[place : place + 4] = rng.randbytes(4)
        raw = raw or bytearray(b"P")
    return bytes(raw)


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_mutated_cells_give_examples_or_named_errors(tmp_path: Path, kind: str) -> None:
    rng, path, counts = random.Random(f"cells {kind}"), tmp_path / "x", Counter[str]()
    for _ in range(NUM_FILES):
        try:
            write_columns(mutate_cells(rng), path, kind)
        except pyarrow.ArrowNotImplementedError:
            continue  # Parquet has no empty objects.
        examples, problems = read_all(path, None)
        counts["read" if examples else "dropped" if problems else "refused"] += 1
    assert min(counts["read"], counts["dropped"], counts["refused"]) > NUM_FILES // 10


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_mutated_bytes_of_columns_give_examples_or_named_errors(tmp_path: Path, kind: str) -> None:
    rng, path = random.Random(f"bytes {kind}"), tmp_path / "x"
    rows = [{**json.loads(SEEDS["canonical"]), "id": str(number)} for number in range(6)]
    file = write_columns(pyarrow.Table.from_pylist(rows), path, kind)
    intact, num_read = file.read_bytes(), 0
    assert len(read_all(path, kind)[0]) == 6
    for number in range(NUM_FILES):
        file.write_bytes(mutate_bytes(rng, intact))
        num_read += bool(read_all(path, kind if number % 2 else None)[0])
    assert 0 < num_read < NUM_FILES // 5
