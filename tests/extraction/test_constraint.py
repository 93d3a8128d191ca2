from __future__ import annotations

from typing import Any

import pytest

from tests.extraction.builders import build_sentencepiece
from tripletune.data.relation_schema import Relation
from tripletune.errors import ConfigError
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.vocabulary import build_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_vocabulary(build_sentencepiece(tmp_path_factory.mktemp("vocabulary")))


def test_constraint_finds_a_relation_by_its_written_form(vocabulary: Any) -> None:
    relation = Relation("职业（曾任）")
    assert Constraint(vocabulary, [relation]).find_relation("职业(曾任)") is relation


def test_constraint_warns_of_relations_that_are_written_alike(vocabulary: Any) -> None:
    with pytest.warns(UserWarning, match=r"\['a，b'\] are left out"):
        constraint = Constraint(vocabulary, [Relation("a,b"), Relation("a，b")])
    assert constraint.find_relation("a,b").name == "a,b"


def test_constraint_refuses_to_have_no_relation(vocabulary: Any) -> None:
    with pytest.raises(ConfigError, match=r"relations: \[\] leaves none"):
        Constraint(vocabulary, [])
