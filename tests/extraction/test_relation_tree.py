from __future__ import annotations

from typing import Any

import pytest

from tests.extraction.builders import build_byte_tokenizer, build_sentencepiece
from tripletune.extraction.relation_tree import RelationTree
from tripletune.extraction.states import ENTER_OBJECT
from tripletune.extraction.vocabulary import Vocabulary, build_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_vocabulary(build_sentencepiece(tmp_path_factory.mktemp("vocabulary")))


def walk(tree: RelationTree, symbols: str) -> Any:
    state: Any = tree.root
    for symbol in symbols:
        state = None if state is None else state.step(symbol)
    return state


@pytest.mark.parametrize("written", ["位于", "总部", "总部地点", r"a\, b"])
def test_relation_tree_leads_each_relation_to_the_object(vocabulary: Any, written: str) -> None:
    tree = RelationTree(["位于", "总部", "总部地点", r"a\, b"], vocabulary)
    assert walk(tree, written + ", ") is ENTER_OBJECT


@pytest.mark.parametrize("written", ["位, ", "总部地, ", "丁", "位于 "])
def test_relation_tree_leads_nothing_else_there(vocabulary: Any, written: str) -> None:
    assert walk(RelationTree(["位于", "总部", "总部地点"], vocabulary), written) is None


def test_relation_tree_takes_the_tokens_that_the_tokenizer_cuts(vocabulary: Any) -> None:
    tree = RelationTree(["总部地点"], vocabulary)
    ids = vocabulary.encode("(甲, 总部地点, 甲)")
    symbols = [vocabulary.symbols[index] for index in ids]
    first = symbols.index(",") + 1
    assert tree.first_tokens == [ids[first]]
    done = symbols[first].removeprefix(" ")
    assert walk(tree, done).allowed.tolist() == [ids[first + 1]]


def test_relation_tree_of_bpe_leads_byte_by_byte_too() -> None:
    tree = RelationTree(["位于"], build_vocabulary(build_byte_tokenizer()))
    assert walk(tree, "\udce4\udcbd\udc8d于, ") is ENTER_OBJECT


def test_relation_tree_leaves_tokens_open_that_do_not_begin_with_the_relation() -> None:
    symbols = ["", "(甲, 位", "于", ",", " ", "甲", ")", "位", "("]
    vocabulary = Vocabulary(
        symbols,
        end_token_id=0,
        hides_first_blank=False,
        spells_all_in_bytes=False,
        rewrite=str,
        encode=lambda text: [1, 2, 3, 4, 5, 6],
    )
    tree = RelationTree(["位于"], vocabulary)
    assert tree.first_tokens is None
    assert tree.root.allowed is None
