from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.extraction.builders import build_byte_tokenizer, build_sentencepiece
from tripletune.errors import ModelError
from tripletune.extraction.vocabulary import TokenTrie, build_vocabulary, spell_bytes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_sentencepiece(tmp_path_factory.mktemp("vocabulary"))


def read_all(vocabulary: Any, ids: list[int]) -> str:
    written = "".join(vocabulary.symbols[index] for index in ids)
    return written.encode("utf-8", "surrogateescape").decode("utf-8")


def test_token_trie_finds_tokens_by_their_symbols() -> None:
    keys = ["a", "a", "ab", "b\U0010ffff"]
    root = TokenTrie((keys, [7, 8, 9, 10]), 0, 4, 0)
    assert root.token_ids == []
    assert sorted(root.children) == ["a", "b"]
    assert root.children["a"].token_ids == [7, 8]
    assert root.children["a"].children["b"].token_ids == [9]
    assert root.children["b"].children["\U0010ffff"].token_ids == [10]


@pytest.mark.parametrize("text", ["(甲公司, 位于, 乙市)\n(丙, 总部地点, 丁😀)", "a\tb   c", "无"])
def test_vocabulary_of_sentencepiece_reads_back_what_is_encoded(small: Any, text: str) -> None:
    vocabulary = build_vocabulary(small)
    assert vocabulary.hides_first_blank
    assert read_all(vocabulary, small.encode_plain(text)) == " " + text


@pytest.mark.parametrize("text", ["(甲公司, 位于, 乙市)\n(丙, 总部地点, 丁😀)", " a  b", "无"])
def test_vocabulary_of_byte_level_bpe_reads_back_what_is_encoded(text: str) -> None:
    tokenizer = build_byte_tokenizer()
    vocabulary = build_vocabulary(tokenizer)
    assert not vocabulary.hides_first_blank
    assert read_all(vocabulary, tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_vocabulary_never_writes_special_tokens(small: Any) -> None:
    vocabulary = build_vocabulary(small)
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "<sop>", "<eop>", "[MASK]", "[gMASK]"]
    assert [vocabulary.symbols[small.sp_model.piece_to_id(piece)] for piece in pieces] == [""] * 8


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [("，", ","), ("㎏", "kg"), ("e\u0301", "é"), ("甲", "甲"), (" ", " "), ("\n", "\n")],
)
def test_vocabulary_rewrites_as_the_tokenizer_does(small: Any, cluster: str, expected: str) -> None:
    assert build_vocabulary(small).rewrite(cluster) == expected


def test_vocabulary_spells_only_characters_without_token(small: Any) -> None:
    vocabulary = build_vocabulary(small)
    assert vocabulary.spell("甲") is None
    assert vocabulary.spell("😀") == "\udcf0\udc9f\udc98\udc80"
    assert vocabulary.can_write("甲")
    assert vocabulary.can_write("😀")
    assert not vocabulary.can_write("\ud800")


def test_vocabulary_of_bpe_spells_every_character() -> None:
    vocabulary = build_vocabulary(build_byte_tokenizer())
    assert vocabulary.spell("甲") == spell_bytes("甲")
    assert vocabulary.spell("a") is None


def test_vocabulary_knows_tokens_with_line_feeds(small: Any) -> None:
    vocabulary = build_vocabulary(small)
    assert [i for i, breaks in enumerate(vocabulary.breaks_line) if breaks] == [
        small.sp_model.piece_to_id("<n>")
    ]


def test_build_vocabulary_refuses_a_tokenizer_it_cannot_read() -> None:
    with pytest.raises(ModelError, match=r"SimpleNamespace has neither .*--free"):
        build_vocabulary(SimpleNamespace())


def test_build_vocabulary_refuses_a_decoder_it_does_not_know() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="a")
    with pytest.raises(ModelError, match=r"\['WordPiece'\]"):
        build_vocabulary(tokenizer)


@pytest.mark.parametrize("name", ["chatglm-6b", "chatglm2-6b", "chatglm3-6b"])
def test_vocabulary_of_official_models_writes_every_character_of_the_data(
    shared_dir: Path, name: str
) -> None:
    import json

    import sentencepiece

    if name == "chatglm-6b":
        from tripletune.models.tokenization_chatglm import ChatGLMTokenizer

        folder = shared_dir / "tokenizers" / name
        tokenizer: Any = ChatGLMTokenizer(str(folder / "ice_text.model"))
    else:
        model = sentencepiece.SentencePieceProcessor()
        model.load(str(shared_dir / "tokenizers" / name / "tokenizer.model"))
        tokenizer = SimpleNamespace(
            sp_model=model, all_special_ids=[0], eos_token_id=2, build_prompt_ids=None
        )
    vocabulary = build_vocabulary(tokenizer)
    lines = (shared_dir / "datasets/duie2/dev.jsonl").read_text(encoding="utf-8").splitlines()
    characters = {character for line in lines[:500] for character in json.loads(line)["text"]}
    written = {part for character in characters for part in vocabulary.rewrite(character)}
    assert {part for part in written if not vocabulary.can_write(part)} == set()
