from __future__ import annotations

import pytest

from tests.extraction.builders import build_byte_tokenizer
from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.errors import ConfigError
from tripletune.extraction.relation_parts import RelationPart, iter_parts
from tripletune.extraction.vocabulary import build_vocabulary

SCHEMA = RelationSchema((Relation("位于"), Relation("总部地点"), Relation("创始人")))


def test_a_prompt_that_lists_nothing_asks_about_everything() -> None:
    assert list(iter_parts(SCHEMA, None, vocabulary=None)) == [RelationPart()]


def test_prompts_that_list_relations_divide_them() -> None:
    parts = list(iter_parts(SCHEMA, 2, vocabulary=None))
    assert parts == [RelationPart(("位于", "总部地点")), RelationPart(("创始人",))]


def test_each_part_is_held_to_its_relations() -> None:
    vocabulary = build_vocabulary(build_byte_tokenizer())
    (whole,) = iter_parts(SCHEMA, None, vocabulary=vocabulary)
    assert whole.find_constraint().relations == list(SCHEMA)
    parts = list(iter_parts(SCHEMA, 2, vocabulary=vocabulary))
    assert [part.names for part in parts] == [("位于", "总部地点"), ("创始人",)]
    relations = [part.find_constraint().relations for part in parts]
    assert relations == [list(SCHEMA)[:2], list(SCHEMA)[2:]]


def test_a_part_without_constraint_says_so() -> None:
    with pytest.raises(ConfigError, match="constrained: False"):
        RelationPart().find_constraint()
