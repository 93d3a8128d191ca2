from __future__ import annotations

import pytest

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.domain import Domain, EntityType, Relation

LEADER = Relation(
    "队长",
    "球队",
    "人物",
    nouns=("队长",),
    sentences=("{s}由{o}带领", "{o}带领{s}", "{o}当选{s}队长", "{s}推选{o}", "{o}率领{s}出战"),
    predicates=("由{o}带领", "推选{o}"),
    modifiers=("由{o}带领的", "{o}率领的"),
)


def test_nouns_give_sentences_and_predicates():
    assert LEADER.all_sentences()[-2:] == ("{s}的队长是{o}", "{s}的队长为{o}")
    assert LEADER.all_predicates() == ("由{o}带领", "推选{o}", "队长是{o}", "队长为{o}")


def test_restricted_divides_every_phrasing():
    seen, unseen = LEADER.restricted("seen"), LEADER.restricted("unseen")
    for name in ("nouns", "sentences", "predicates", "modifiers"):
        parts = getattr(seen, name), getattr(unseen, name)
        assert not set(parts[0]) & set(parts[1])
        assert sorted(parts[0] + parts[1]) == sorted(getattr(LEADER, name))


def test_restricted_keeps_forms_of_one_wording_together():
    for side in ("seen", "unseen"):
        part = LEADER.restricted(side)
        assert ("由{o}带领" in part.predicates) == ("{s}由{o}带领" in part.sentences)
        assert ("由{o}带领" in part.predicates) == ("由{o}带领的" in part.modifiers)


def test_restricted_to_all_is_the_relation_itself():
    assert LEADER.restricted("all") is LEADER


def test_reserved_wordings_are_a_fifth_of_the_sentences_at_least():
    assert (
        len(LEADER.reserved_wordings() & {"由|带领", "|带领", "|当选队长", "推选|", "|率领出战"})
        == 1
    )


def test_domain_groups_relations_by_subject():
    types = {name: EntityType(name, name, "人物") for name in ("球队", "人物")}
    assert Domain(types, (LEADER,)).by_subject == {"球队": (LEADER,)}


@pytest.mark.parametrize("side", ["seen", "unseen"])
def test_every_builtin_relation_keeps_a_sentence_on_both_sides(side):
    domain = build_default_domain()
    assert len(domain.restricted(side).relations) == len(domain.relations)
