from __future__ import annotations

import random

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.clauses import ClauseWriter
from tripletune.data.generator.names import NameSource
from tripletune.data.generator.sentences import Difficulty
from tripletune.data.generator.surroundings import Surroundings
from tripletune.data.generator.world import build_world


def build(**difficulty):
    stream = random.Random(1)
    settings = Difficulty(**difficulty)
    names = NameSource("train", stream)
    domain = build_default_domain()
    world = build_world(domain, names, stream.random)
    surroundings = Surroundings(domain, world, names, stream.random, settings)
    return surroundings, ClauseWriter(world, names, stream.random, settings)


def test_wrap_only_ends_the_sentence_when_rates_are_zero():
    surroundings, _ = build(opener_rate=0, closer_rate=0)
    texts = {surroundings.wrap("甲在乙", []) for _ in range(300)}
    assert texts == {"甲在乙。", "甲在乙！", "甲在乙"}


def test_wrap_puts_words_before_and_behind():
    surroundings, _ = build(opener_rate=1, closer_rate=1, distractor_rate=0)
    for _ in range(50):
        mentions = []
        text = surroundings.wrap("甲在乙", mentions)
        assert text.index("甲在乙") > 0
        assert not text.endswith("甲在乙")
        assert mentions == []


def test_wrap_mentions_entities_that_take_part_in_no_fact():
    surroundings, _ = build(opener_rate=1, closer_rate=1, distractor_rate=1)
    for _ in range(50):
        mentions = []
        text = surroundings.wrap("甲在乙", mentions)
        assert len(mentions) >= 2
        assert all(name in text for name, _ in mentions)


def test_unrelated_sentences_fill_every_slot():
    surroundings, clauses = build()
    for _ in range(2000):
        mentions = []
        text = surroundings.write_unrelated(clauses, mentions)
        assert "{" not in text
        assert "}" not in text
        assert all(name in text for name, _ in mentions)


def test_unrelated_sentences_are_of_several_kinds():
    surroundings, clauses = build()
    texts = [surroundings.write_unrelated(clauses, []) for _ in range(2000)]
    everything = " ".join(texts)
    for words in ("天气闷热", "传言已被辟谣", "的街头遇到了", "最近游客很多", "并非"):
        assert words in everything
    assert len(set(texts)) > 1500
