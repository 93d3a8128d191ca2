from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.sentences import (
    DIFFICULTIES,
    Difficulty,
    SentenceGenerator,
    build_example,
    render_line,
    with_max_triplets,
)
from tripletune.errors import ConfigError

HARD = Difficulty(num_triplets=(1,) * 9, odd_names=0.1, list_rate=0.7, overlap_rate=0.3)


@pytest.mark.parametrize("difficulty", [None, HARD])
def test_every_item_occurs_in_the_text(difficulty):
    for example in islice(SentenceGenerator("train", 1, difficulty=difficulty), 3000):
        for triplet in example.triplets:
            assert triplet.subject in example.text
            assert triplet.object in example.text


def test_no_triplet_is_stated_twice():
    for example in islice(SentenceGenerator("base", 2, difficulty=HARD), 3000):
        assert len(set(example.triplets)) == len(example.triplets)


def test_number_of_triplets_is_the_one_asked_for():
    generator = SentenceGenerator("train", 3)
    for count in [*range(9)] * 100:
        assert len(generator.generate_sentence(count).facts) == count


def test_number_of_triplets_follows_the_weights():
    source = SentenceGenerator("train", 4, difficulty=Difficulty(num_triplets=(1, 0, 1)))
    counts = Counter(len(example.triplets) for example in islice(source, 2000))
    assert set(counts) == {0, 2}
    assert 900 < counts[0] < 1100


def test_triplets_stand_in_the_order_of_the_text():
    for example in islice(SentenceGenerator("train", 5, difficulty=HARD), 1000):
        places = [
            (example.text.find(t.subject), example.text.find(t.object)) for t in example.triplets
        ]
        assert places == sorted(places)


def test_types_are_set_and_are_those_of_the_relation():
    domain = build_default_domain()
    allowed = {
        (
            relation.name,
            domain.types[relation.subject_type].label,
            domain.types[relation.object_type].label,
        )
        for relation in domain.relations
    }
    found = {
        (triplet.relation, triplet.subject_type, triplet.object_type)
        for example in islice(SentenceGenerator("train", 6), 5000)
        for triplet in example.triplets
    }
    assert found == allowed


def test_stream_depends_on_seed_and_pool_alone():
    def texts(pool, seed):
        return [example.text for example in islice(SentenceGenerator(pool, seed), 20)]

    assert texts("train", 1) == texts("train", 1)
    assert texts("train", 1) != texts("train", 2)
    assert texts("train", 1) != texts("base", 1)


def test_mean_length_is_that_of_a_usual_sentence():
    texts = [example.text for example in islice(SentenceGenerator("train", 8), 2000)]
    assert 25 <= sum(map(len, texts)) / len(texts) <= 60


def test_mentions_hold_every_item_of_the_facts():
    generator = SentenceGenerator("train", 9)
    for _ in range(500):
        sentence = generator.generate_sentence()
        named = {name for name, _ in sentence.mentions}
        assert {item for fact in sentence.facts for item in (fact[0], fact[2])} <= named
        assert all(name in sentence.text for name in named)


def test_rates_of_zero_leave_structures_out():
    plain = Difficulty(
        num_triplets=(0, 0, 1),
        list_rate=0,
        nested_rate=0,
        overlap_rate=0,
        pronoun_rate=0,
        opener_rate=0,
        closer_rate=0,
        negation_rate=0,
    )
    generator = SentenceGenerator("train", 10, difficulty=plain)
    for _ in range(500):
        sentence = generator.generate_sentence()
        relations = [relation.name for _, relation, _ in sentence.facts]
        assert len(set(relations)) == 2 or len({subject for subject, _, _ in sentence.facts}) == 2
        assert len(sentence.mentions) in (3, 4)


@pytest.mark.parametrize("weights", [(), (0.0,), (1, -1), (1,) * 10])
def test_difficulty_refuses_impossible_weights(weights):
    with pytest.raises(ConfigError, match="num_triplets: "):
        Difficulty(num_triplets=weights)


def test_difficulty_refuses_a_rate_above_one():
    with pytest.raises(ConfigError, match=r"pronoun_rate: 1\.5 is not a share from 0 to 1"):
        Difficulty(pronoun_rate=1.5)


def test_render_line_is_the_canonical_line():
    generator = SentenceGenerator("train", 12, difficulty=HARD)
    for _ in range(500):
        sentence = generator.generate_sentence()
        expected = build_example(sentence, generator.domain).to_json()
        assert render_line(sentence, generator.domain) == expected


def test_open_names_leave_out_what_every_pool_has():
    generator = SentenceGenerator("validation", 13)
    closed = {"国家", "职业", "语言", "民族", "日期", "面积", "人口", "金额"}
    for _ in range(500):
        sentence = generator.generate_sentence()
        expected = [name for name, kind in sentence.mentions if kind not in closed]
        assert list(generator.open_names(sentence)) == expected


def test_difficulties_get_harder():
    def mean_triplets(name):
        weights = DIFFICULTIES[name].num_triplets
        return sum(count * weight for count, weight in enumerate(weights)) / sum(weights)

    assert mean_triplets("easy") < mean_triplets("medium") < mean_triplets("hard")
    assert len(DIFFICULTIES["hard"].num_triplets) == 9


@pytest.mark.parametrize(
    ("most", "expected"), [(0, (4.0,)), (1, (4.0, 2.0)), (3, (4.0, 2.0, 1.0, 0.5))]
)
def test_with_max_triplets_cuts_or_extends_the_weights(most, expected):
    assert with_max_triplets(Difficulty(num_triplets=(4.0, 2.0)), most).num_triplets == expected


def test_with_max_triplets_refuses_more_than_eight():
    with pytest.raises(ConfigError, match="max_triplets: 9 is not a number from 0 to 8"):
        with_max_triplets(Difficulty(), 9)
