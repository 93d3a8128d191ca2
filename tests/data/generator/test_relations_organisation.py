from __future__ import annotations

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.relations_organisation import (
    ORGANISATION_RELATIONS,
    PLACE_RELATIONS,
)


def test_relations_are_about_organisations_and_places():
    assert {relation.subject_type for relation in ORGANISATION_RELATIONS} == {"公司", "学校"}
    assert {relation.subject_type for relation in PLACE_RELATIONS} == {"城市", "虚构国家"}


def test_every_relation_is_in_the_default_domain_once():
    relations = build_default_domain().relations
    both = ORGANISATION_RELATIONS + PLACE_RELATIONS
    assert [relations.count(relation) for relation in both] == [1] * len(both)


def test_founders_and_products_can_be_listed():
    listed = {r.name for r in ORGANISATION_RELATIONS if r.max_objects > 1}
    assert listed == {"创始人", "主要产品"}
