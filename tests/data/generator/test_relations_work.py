from __future__ import annotations

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.relations_work import WORK_RELATIONS


def test_relations_are_about_works():
    subjects = {relation.subject_type for relation in WORK_RELATIONS}
    assert subjects == {"图书", "影视作品", "歌曲", "专辑"}


def test_every_relation_is_in_the_default_domain_once():
    relations = build_default_domain().relations
    assert [relations.count(relation) for relation in WORK_RELATIONS] == [1] * len(WORK_RELATIONS)


def test_titles_stand_in_title_marks():
    types = build_default_domain().types
    assert {types[relation.subject_type].mark for relation in WORK_RELATIONS} == {"《{}》"}
