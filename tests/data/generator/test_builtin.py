from __future__ import annotations

import re
from string import Formatter

import pytest

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.names import NAME_KINDS

RELATIONS = build_default_domain().relations


def slots(text):
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_default_domain_has_at_least_20_relations():
    assert len({relation.name for relation in RELATIONS}) >= 20


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda r: f"{r.name}-{r.subject_type}")
def test_relation_has_at_least_6_phrasings_of_its_own(relation):
    assert len(set(relation.sentences)) == len(relation.sentences)
    assert len(relation.all_sentences()) >= 7
    assert len(relation.all_predicates()) >= 4
    assert relation.modifiers


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda r: f"{r.name}-{r.subject_type}")
def test_relation_has_the_slots_of_each_form(relation):
    assert all(slots(text) == ["o", "s"] for text in relation.all_sentences())
    assert all(slots(text) == ["o"] for text in relation.all_predicates())
    assert all(slots(text) == ["o"] for text in relation.modifiers)


def test_relations_name_types_of_the_domain():
    domain = build_default_domain()
    for relation in domain.relations:
        assert relation.subject_type in domain.types
        assert relation.object_type in domain.types


def test_types_draw_kinds_of_names_that_exist():
    assert {t.kind for t in build_default_domain().types.values()} <= set(NAME_KINDS)


def test_one_wording_of_a_pair_of_types_states_one_relation():
    wordings: dict[tuple[str, ...], str] = {}
    for relation in RELATIONS:
        types = (relation.subject_type, relation.object_type)
        texts = relation.sentences + relation.predicates + relation.modifiers
        for text in {re.sub(r"\{s\}", "", text) for text in texts}:
            assert wordings.setdefault((*types, text), relation.name) == relation.name
