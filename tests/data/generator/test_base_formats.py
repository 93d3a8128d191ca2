from __future__ import annotations

import json
import random

import pytest

from tripletune.data.generator.base_formats import FORMATS, compose_format, render_facts
from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.names import NameSource
from tripletune.data.linearize import parse_free

TYPES = build_default_domain().types
RELATIONS = {r.name: r for r in build_default_domain().relations if r.subject_type == "人物"}
FACTS = [
    ("甲明", RELATIONS["父亲"], "乙强"),
    ("甲明", RELATIONS["职业"], "医生"),
    ("丙红", RELATIONS["职业"], "律师"),
]


def find(words):
    (form,) = [form for form in FORMATS if words in form.instructions[0]]
    return form


def test_json_format_gives_json():
    answer = json.loads(render_facts(find("写成JSON列表"), FACTS, TYPES))
    assert answer == [
        {"主体": "甲明", "关系": "父亲", "客体": "乙强"},
        {"主体": "甲明", "关系": "职业", "客体": "医生"},
        {"主体": "丙红", "关系": "职业", "客体": "律师"},
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("用箭头表示", "甲明 -> 父亲 -> 乙强\n甲明 -> 职业 -> 医生\n丙红 -> 职业 -> 律师"),
        ("某关系是某某", "甲明的父亲是乙强；甲明的职业是医生；丙红的职业是律师。"),
        ("编号", "1. 甲明，父亲，乙强\n2. 甲明，职业，医生\n3. 丙红，职业，律师"),
        ("按主体整理", "甲明：父亲=乙强，职业=医生\n丙红：职业=律师"),
        ("按关系整理", "父亲：甲明-乙强\n职业：甲明-医生，丙红-律师"),
        (
            "主体和客体的类型",
            "甲明[人物] - 父亲 - 乙强[人物]\n"
            "甲明[人物] - 职业 - 医生[职业]\n"
            "丙红[人物] - 职业 - 律师[职业]",
        ),
    ],
)
def test_format_writes_facts_as_its_instruction_says(words, expected):
    assert render_facts(find(words), FACTS, TYPES) == expected


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.instructions[0][:12])
def test_format_holds_every_item_and_is_no_triplet_format(form):
    answer = render_facts(form, FACTS, TYPES)
    for subject, relation, object_ in FACTS:
        assert {subject in answer, relation.name in answer, object_ in answer} == {True}
    assert parse_free(answer).triplets == ()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.instructions[0][:12])
def test_format_says_when_there_is_nothing(form):
    assert render_facts(form, [], TYPES) == form.empty


def test_there_are_at_least_8_formats_with_several_instructions():
    assert len(FORMATS) >= 8
    assert all(len(form.instructions) >= 2 for form in FORMATS)


def test_composed_format_is_what_its_instruction_shows():
    names = NameSource("base", random.Random(4))
    lines = set()
    for _ in range(500):
        form = compose_format(names)
        line = render_facts(form, FACTS[:1], TYPES)
        shown = line.replace("甲明", "S").replace("父亲", "R").replace("乙强", "O")
        candidates = [
            shown.replace("S", s).replace("R", r).replace("O", o)
            for s, r, o in (
                ("主体", "关系", "客体"),
                ("实体1", "关系", "实体2"),
                ("主语", "谓语", "宾语"),
                ("头", "边", "尾"),
                ("起点", "关系", "终点"),
            )
        ]
        assert any(candidate in form.instructions[0] for candidate in candidates)
        assert parse_free(render_facts(form, FACTS, TYPES)).triplets == ()
        lines.add(shown)
    assert len(lines) > 100
