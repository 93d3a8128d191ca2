from __future__ import annotations

from string import Formatter

import pytest

from tripletune.data.generator import base_wordings as words
from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.names import NAME_KINDS


def slots(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize(
    ("texts", "needed"),
    [
        (words.LAYOUTS, {"q", "t"}),
        (words.ONE_RELATION, {"r"}),
        (words.SUBJECT_QUESTIONS, {"n", "o"}),
        (words.ENTITIES_OF_A_TYPE, {"a"}),
        (words.RELATION_OF_PAIR, {"s", "o"}),
        (words.STATEMENTS, {"s", "r", "o"}),
        (words.FILL_IN, {"f", "g"}),
    ],
)
def test_every_wording_has_its_slots(texts, needed):
    assert len(texts) >= 3
    assert all(needed <= slots(text) for text in texts)


def test_type_labels_are_those_of_the_domain_and_of_distractors():
    labels = {entity.label for entity in build_default_domain().types.values()}
    assert labels <= set(words.TYPE_LABELS)


def test_list_kinds_exist():
    assert set(words.LIST_KINDS) <= set(NAME_KINDS)


def test_question_words_are_for_types_of_the_domain():
    assert set(words.QUESTION_WORDS) <= set(build_default_domain().types)
