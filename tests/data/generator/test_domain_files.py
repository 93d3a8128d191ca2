from __future__ import annotations

import json
import re
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.dataset import DatasetPlan, generate_examples
from tripletune.data.generator.domain import EntityType, Relation, state_by_name
from tripletune.data.generator.domain_files import load_domain
from tripletune.data.generator.sentences import SentenceGenerator
from tripletune.errors import ConfigError, DataError

DISEASE = {"type": "疾病", "names": [f"病{n}" for n in range(40)], "pronouns": ["该病"]}
SYMPTOM = {"type": "症状", "names": ["发热", "咳嗽", "头痛"], "shared": True}
CAUSES = {
    "relation": "表现",
    "subject_type": "疾病",
    "object_type": "症状",
    "sentences": ["{subject}会引起{object}"],
    "max_objects": 2,
}


@pytest.fixture
def write(tmp_path):
    def write_lines(name, *rows):
        path = tmp_path / name
        lines = [
            row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_lines


def test_templates_give_types_and_relations(write):
    domain = load_domain(write("t.jsonl", DISEASE, SYMPTOM, CAUSES))
    names = tuple(f"病{n}" for n in range(40))
    assert domain.types == {
        "疾病": EntityType("疾病", "疾病", "疾病", "{}", ("该病",), (), names),
        "症状": EntityType("症状", "症状", "症状", names=("发热", "咳嗽", "头痛"), shared=True),
    }
    assert domain.relations == (
        Relation("表现", "疾病", "症状", sentences=("{s}会引起{o}",), max_objects=2),
    )
    assert domain.facts == ()


def test_templates_are_stated_in_examples(write):
    domain = load_domain(write("t.jsonl", DISEASE, SYMPTOM, CAUSES))
    for example in islice(SentenceGenerator("train", 1, domain=domain), 200):
        for triplet in example.triplets:
            assert triplet.relation == "表现"
            assert (triplet.subject_type, triplet.object_type) == ("疾病", "症状")
            assert f"{triplet.subject}会引起" in example.text


def test_relation_without_phrasings_is_stated_by_its_name(write):
    bare = {"relation": "疗程", "subject_type": "疾病", "object_type": "日期"}
    domain = load_domain(write("t.jsonl", DISEASE, bare))
    assert domain.relations[0].nouns == ("疗程",)
    assert domain.types["日期"] is build_default_domain().types["日期"]


def test_names_file_gives_a_name_a_line(write, tmp_path):
    (tmp_path / "names.txt").write_text("甲病\n\n 乙病 \n", encoding="utf-8")
    row = {"type": "疾病", "names_file": "names.txt"}
    domain = load_domain(write("t.jsonl", row, SYMPTOM, CAUSES))
    assert domain.types["疾病"].names == ("甲病", "乙病")


def test_kind_makes_names_up(write):
    doctor = {"type": "医生", "kind": "人物", "label": "人", "mark": "“{}”"}
    relation = {"relation": "同事", "subject_type": "医生", "object_type": "医生"}
    domain = load_domain(write("t.jsonl", doctor, relation))
    assert domain.types["医生"] == EntityType("医生", "人", "人物", "“{}”")


def test_facts_are_all_that_is_stated(write):
    facts = [(f"病{n}", "表现", symptom) for n in range(30) for symptom in ("发热", "头痛")]
    rows = [dict(zip(("subject", "relation", "object"), fact, strict=True)) for fact in facts]
    domain = load_domain(write("t.jsonl", DISEASE, SYMPTOM, CAUSES), write("f.jsonl", *rows))
    files = generate_examples(DatasetPlan(100, 20, domain=domain))
    stated = {
        triplet.key for examples in files.values() for e in examples for triplet in e.triplets
    }
    assert stated <= set(facts)
    assert len(stated) > 30


def test_facts_of_labelled_examples_are_taken(write):
    row = {
        "text": "略",
        "triplets": [
            {"subject": "甲", "relation": "父亲", "object": "乙"},
            {"subject": "甲", "relation": "绝技", "object": "太极", "object_type": "武术"},
        ],
    }
    domain = load_domain(facts=write("f.jsonl", row))
    assert domain.facts == (
        ("甲", ("父亲", "人物", "人物"), "乙"),
        ("甲", ("绝技", "实体", "武术"), "太极"),
    )
    assert [relation.name for relation in domain.relations] == ["父亲", "绝技"]
    assert domain.relations[0] in build_default_domain().relations
    assert domain.types["武术"].names == ("太极",)


def test_facts_with_other_types_borrow_the_phrasings_of_the_relation(write):
    row = {
        "subject": "甲",
        "relation": "导演",
        "object": "乙",
        "subject_type": "话剧",
        "object_type": "人物",
    }
    (relation,) = load_domain(facts=write("f.jsonl", row)).relations
    assert (relation.subject_type, relation.object_type) == ("话剧", "人物")
    assert "{s}由{o}执导" in relation.sentences


def test_relation_without_phrasings_is_stated_by_its_name_in_several_ways(tmp_path):
    schema = tmp_path / "schema.json"
    record = {"relations": [{"name": "临床{表现}", "types": [["疾病", "症状"]]}]}
    schema.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    (relation,) = load_domain(schema=schema).relations
    assert relation.name == "临床{表现}"
    assert relation.all_sentences() == (
        *("{s}的临床表现包括{o}", "{o}是{s}的临床表现", "{s}，临床表现：{o}"),
        *("提到{s}，其临床表现是{o}", "{s}的临床表现是{o}", "{s}的临床表现为{o}"),
    )
    assert all(relation.restricted(side).all_sentences() for side in ("seen", "unseen"))


def test_types_of_a_schema_have_the_names_of_what_they_are_like(tmp_path):
    schema = tmp_path / "schema.json"
    types = [["图书作品", "气候"], ["企业", "Number"], ["人物", "学校"]]
    record = {"relations": [{"name": "甲", "types": types}]}
    schema.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    domain = load_domain(schema=schema)
    found = {name: (t.label, t.kind, t.mark) for name, t in domain.types.items()}
    assert found == {
        "图书作品": ("图书作品", "图书", "《{}》"),
        "气候": ("气候", "专名", "{}"),
        "企业": ("企业", "公司", "{}"),
        "Number": ("Number", "数字", "{}"),
        "人物": ("人物", "人物", "{}"),
        "学校": ("学校", "学校", "{}"),
    }
    assert domain.named_by_kind == (
        ("图书作品", "图书"),
        ("气候", "专名"),
        ("企业", "公司"),
        ("Number", "数字"),
    )


def test_schema_relations_are_built_in_ones_or_stated_by_name(write, tmp_path):
    schema = tmp_path / "schema.json"
    record = {
        "relations": [
            {"name": "父亲", "types": [["人物", "人物"]]},
            {"name": "籍贯", "types": [["人物", "地点"]]},
        ]
    }
    schema.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    domain = load_domain(schema=schema)
    assert domain.relations[0] in build_default_domain().relations
    assert domain.relations[1] == state_by_name(Relation("籍贯", "人物", "地点"))
    assert domain.types["地点"].kind == "城市"


def test_load_domain_needs_a_file():
    with pytest.raises(ConfigError, match="neither templates nor facts nor a schema"):
        load_domain()


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ((DISEASE, "{broken"), 2, "broken JSON"),
        ((DISEASE, "[1]"), 2, "[1] is not a JSON object"),
        ((DISEASE, {"names": ["甲"]}), 2, "name neither a 'type' nor a 'relation'"),
        ((DISEASE, DISEASE), 2, "type '疾病' is given twice"),
        (
            (DISEASE, SYMPTOM, CAUSES, CAUSES),
            4,
            "relation '表现' from '疾病' to '症状' is given twice",
        ),
        (({**DISEASE, "nams": []},), 1, "field 'nams' is not known; did you mean 'names'?"),
        (({"type": "疾病", "kind": "人"},), 1, "kind: '人' is not known"),
        (({"type": "疾病", "names": "感冒"},), 1, "names: '感冒' is not a list of texts"),
        (({"type": "疾病", "names": [""]},), 1, "names: [''] is not a list of texts"),
        (({"type": " "},), 1, "type: ' ' is not a text"),
        (({**DISEASE, "mark": "x{}"},), 1, "mark: 'x{}' is not {} within marks"),
        (({**DISEASE, "mark": "《》"},), 1, "mark: '《》' is not {} within marks"),
        (({**DISEASE, "shared": 1},), 1, "shared: 1 is not true or false"),
        (({"type": "疾病", "names_file": "no.txt"},), 1, "names_file: "),
        (({**CAUSES, "max_objects": 9},), 1, "max_objects: 9 is not a number from 1 to 8"),
        (({**CAUSES, "max_objects": True},), 1, "max_objects: True is not a number"),
        (({**CAUSES, "sentences": ["{s}会"]},), 1, "sentences: '{s}会' must hold {s} and {o}"),
        (({**CAUSES, "sentences": ["{s}{o}{x}"]},), 1, "sentences: '{s}{o}{x}' must hold"),
        (({**CAUSES, "sentences": ["{s}{o}}"]},), 1, "sentences: '{s}{o}}' must hold"),
        (({**CAUSES, "predicates": ["{s}有{o}"]},), 1, "predicates: '{s}有{o}' must hold {o} once"),
        (({"relation": "表现", "subject_type": "疾病"},), 1, "object_type: None is not a text"),
        ((DISEASE, CAUSES), 2, "type '症状' has no names"),
    ],
)
def test_template_errors_name_file_and_line(write, rows, line, message):
    path = write("t.jsonl", *rows)
    with pytest.raises(DataError, match=re.escape(f"t.jsonl:{line}: ") + ".*" + re.escape(message)):
        load_domain(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"subject": "甲", "relation": "表现"}, "object: None is not a text"),
        ({"subject": "", "relation": "表现", "object": "乙"}, "subject: '' is not a text"),
        ({"subject": "甲", "relation": "表象", "object": "乙"}, "did you mean '表现'?"),
        (
            {"subject": "甲", "relation": "表现", "object": "乙", "subject_type": "人物"},
            "relation '表现' with types ('人物', '') is not among the relations",
        ),
        ({"text": "略", "triplets": 3}, "triplets: 3 is not a list"),
        ({"text": "略", "triplets": [3]}, "triplet: 3 is not an object"),
    ],
)
def test_fact_errors_name_file_and_line(write, row, message):
    templates = write("t.jsonl", DISEASE, SYMPTOM, CAUSES)
    facts = write("f.jsonl", {"subject": "病1", "relation": "表现", "object": "发热"}, row)
    with pytest.raises(DataError, match=r"f\.jsonl:2: .*" + re.escape(message)):
        load_domain(templates, facts)


def test_ambiguous_relation_of_a_fact_is_an_error(write):
    facts = write("f.jsonl", {"subject": "甲", "relation": "成立日期", "object": "1990年"})
    with pytest.raises(DataError, match=r"f\.jsonl:1: .*公司 -> 日期, 学校 -> 日期"):
        load_domain(facts=facts)


def test_fact_file_without_facts_is_an_error(write):
    with pytest.raises(DataError, match=r"f\.jsonl: holds no fact"):
        load_domain(facts=write("f.jsonl", {"text": "略", "triplets": []}))


def test_templates_without_relations_need_facts(write):
    path = write("t.jsonl", DISEASE)
    with pytest.raises(DataError, match=r't\.jsonl: no line has a "relation"'):
        load_domain(path)
    facts = write(
        "f.jsonl", {"subject": "病1", "relation": "别名", "object": "怪病", "subject_type": "疾病"}
    )
    assert load_domain(path, facts).types["疾病"].names == tuple(f"病{n}" for n in range(40))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10) | st.text("甲{so}《 \n", max_size=6),
    lambda values: st.lists(values, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from([*DISEASE, *CAUSES, "kind", "label", "mark", "shared", "names_file", "x"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([DISEASE, SYMPTOM, CAUSES]), FIELDS, VALUES)
def test_changed_templates_give_a_domain_or_a_named_error(write, row, field, value):
    rows = [
        row_ if row_ is not row else {**row, field: value} for row_ in (DISEASE, SYMPTOM, CAUSES)
    ]
    try:
        domain = load_domain(write("t.jsonl", *rows))
        for example in islice(SentenceGenerator("train", 1, domain=domain), 20):
            for triplet in example.triplets:
                assert triplet.subject in example.text
                assert triplet.object in example.text
    except (ConfigError, DataError):
        pass
