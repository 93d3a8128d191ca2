from __future__ import annotations

import pytest

from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.report import DifficultyReport, Measures, measure_sentence
from tripletune.data.generator.sentences import Sentence

TYPES = {
    "图书": EntityType("图书", "图书", "图书", "《{}》", ("该书",)),
    "人物": EntityType("人物", "人物", "人物", "{}", ("他",)),
    "城市": EntityType("城市", "地点", "城市"),
}
WROTE = Relation("作者", "图书", "人物", ("作者",))
EDITED = Relation("编者", "图书", "人物", ("编者",))
BORN = Relation("出生地", "人物", "城市", ("出生地",))
DOMAIN = Domain(TYPES, (WROTE, EDITED, BORN))


def measure(text, facts, mentions=()):
    named = dict.fromkeys([n for s, _, o in facts for n in (s, o)] + list(mentions))
    sentence = Sentence(text, facts, [(name, "人物") for name in named])
    return measure_sentence(sentence, DOMAIN)


def test_measure_of_a_plain_fact():
    assert measure("《夜航》由李文写成。", [("夜航", WROTE, "李文")]) == Measures(
        num_triplets=1,
        num_characters=10,
        num_distractors=0,
        shares_pair=False,
        shares_entity=False,
        is_nested=False,
        is_crossing=False,
        has_pronoun=False,
        distance=4.0,
        relations=("作者",),
    )


def test_measure_of_a_sentence_without_facts():
    measures = measure("王方来了。", [], ["王方"])
    assert (measures.num_triplets, measures.num_characters, measures.num_distractors) == (0, 5, 1)
    assert measures.relations == ()


def test_measure_counts_entities_of_no_fact():
    measures = measure("王方说，《夜航》由李文写成。", [("夜航", WROTE, "李文")], ["王方"])
    assert measures.num_distractors == 1


def test_measure_sees_two_relations_of_one_pair():
    facts = [("夜航", WROTE, "李文"), ("夜航", EDITED, "李文")]
    measures = measure("李文是《夜航》的作者兼编者。", facts)
    assert measures.shares_pair
    assert measures.is_crossing
    assert not measures.shares_entity


@pytest.mark.parametrize(
    "facts",
    [
        [("夜航", WROTE, "李文"), ("夜航", WROTE, "王方")],
        [("夜航", WROTE, "李文"), ("晨星", WROTE, "李文")],
        [("夜航", WROTE, "李文"), ("李文", BORN, "临海")],
    ],
)
def test_measure_sees_a_shared_entity(facts):
    measures = measure("《夜航》《晨星》李文王方临海", facts)
    assert measures.shares_entity
    assert not measures.shares_pair
    assert measures.is_nested == (facts[1][1] is BORN)


def test_measure_sees_separate_facts():
    facts = [("夜航", WROTE, "李文"), ("晨星", WROTE, "王方")]
    assert not measure("《夜航》李文《晨星》王方", facts).shares_entity


def test_measure_sees_pronouns_of_the_subjects_type():
    assert measure("《夜航》很好，该书由李文写成。", [("夜航", WROTE, "李文")]).has_pronoun
    assert not measure("《夜航》由李文写成，他很忙。", [("夜航", WROTE, "李文")]).has_pronoun


def test_report_adds_up():
    report = DifficultyReport()
    report.add(Measures(0, 4, 1, False, False, False, False, False, 0.0, ()))
    report.add(Measures(2, 10, 0, True, False, False, True, False, 3.0, ("作者", "编者")))
    report.add(Measures(1, 13, 0, False, False, False, False, True, 6.0, ("作者",)))
    assert report.to_record() == {
        "num_sentences": 3,
        "num_triplets": 3,
        "by_num_triplets": {"0": 1, "1": 1, "2": 1},
        "mean_characters": 9.0,
        "mean_distance": 4.0,
        "shares": {
            "pair_overlap": 0.3333,
            "entity_overlap": 0.0,
            "nested": 0.0,
            "object_first": 0.3333,
            "pronoun": 0.3333,
            "distractor": 0.3333,
        },
        "relations": {"作者": 2, "编者": 1},
    }


def test_report_of_nothing_is_zero():
    record = DifficultyReport().to_record()
    assert (record["num_sentences"], record["mean_characters"], record["mean_distance"]) == (
        0,
        0,
        0,
    )
