from __future__ import annotations

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.relations_person import PERSON_RELATIONS


def test_every_relation_is_about_a_person():
    assert {relation.subject_type for relation in PERSON_RELATIONS} == {"人物"}


def test_every_relation_is_in_the_default_domain_once():
    relations = build_default_domain().relations
    assert [relations.count(relation) for relation in PERSON_RELATIONS] == [1] * len(
        PERSON_RELATIONS
    )


def test_people_have_relations_to_people_places_dates_and_organisations():
    types = {relation.object_type for relation in PERSON_RELATIONS}
    assert types >= {"人物", "城市", "日期", "学校", "公司", "职业", "国家", "奖项"}
