"""The vocabulary that `scripts/build_base_tokenizer.py` makes."""

from __future__ import annotations

import importlib.util
import json
import string

import pytest
import sentencepiece

from tripletune.data.generator.base_tasks import iter_base_pairs
from tripletune.data.generator.names import COMMON_CHARACTERS


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "src" / "tripletune" / "assets" / "embedded"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "ice_text.model"))


@pytest.fixture(scope="module")
def script(repository):
    path = repository / "scripts" / "build_base_tokenizer.py"
    spec = importlib.util.spec_from_file_location("build_base_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_special_pieces_stand_where_chatglm_has_them(tokenizer):
    pieces = [tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())]
    assert pieces[:6] == ["<unk>", "<s>", "</s>", "<pad>", "<n>", "▁"]
    start = pieces.index("[MASK]")
    assert pieces[start : start + 10] == [
        *("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"),
        *("<|tab|>", "<|blank_2|>"),
    ]
    assert pieces[-257:-255] == ["<|blank_80|>", "<0x00>"]
    assert pieces[-1] == "<0xFF>"


def test_piece_kinds_are_those_of_chatglm(tokenizer, shared_dir):
    real = sentencepiece.SentencePieceProcessor(
        model_file=str(shared_dir / "tokenizers" / "chatglm-6b" / "ice_text.model")
    )
    names = ["<unk>", "<s>", "</s>", "<pad>", "<n>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>"]
    names += ["<eop>", "<|tab|>", "<|blank_2|>", "<|blank_80|>", "<0x00>", "<0xFF>", "的", "a"]
    for name in names:
        kinds = [
            (
                model.is_control(index),
                model.is_byte(index),
                model.is_unknown(index),
                model.is_unused(index),
            )
            for model in (tokenizer, real)
            for index in [model.piece_to_id(name)]
        ]
        assert kinds[0] == kinds[1], name


def test_common_characters_are_one_piece_each(tokenizer):
    for character in COMMON_CHARACTERS + string.digits + string.ascii_letters + "《》、。":
        assert tokenizer.encode("的" + character, out_type=str) == ["▁", "的", character]


def test_any_character_can_be_written(tokenizer):
    text = "《龘靐》由玥𠮷执导, emoji 🎬 ok"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 0 not in tokenizer.encode(text)


def test_control_pieces_in_a_text_are_plain_characters(tokenizer):
    assert tokenizer.encode("[gMASK]", out_type=str) == ["▁", *"[gMASK]"]
    assert tokenizer.encode("甲<n>乙", out_type=str) == ["▁", "甲", "<n>", "乙"]


def test_normalisation_is_that_of_chatglm(tokenizer, shared_dir):
    real = sentencepiece.SentencePieceProcessor(
        model_file=str(shared_dir / "tokenizers" / "chatglm-6b" / "ice_text.model")
    )
    for text in ("Ａ，Ｂ；（①）　末", "  two  spaces ", "℃½ﬁ", "全角：！？～"):
        assert tokenizer.decode(tokenizer.encode(text)) == real.decode(real.encode(text))


def test_generated_text_needs_few_bytes(tokenizer):
    ids = [
        index
        for query, answer in iter_base_pairs(8, 1000)
        for index in tokenizer.encode(f"{query}<n>{answer}".replace("\n", "<n>"))
    ]
    assert 0 not in ids
    share = sum(tokenizer.is_byte(index) for index in ids) / len(ids)
    assert 0 < share < 0.03


def test_script_makes_the_same_pieces_again(script, tokenizer):
    # The order of the characters follows their frequency in generated text, all else is fixed.
    model = script.reorder_pieces(script.train_pieces(500, 1))
    again = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [
        [each.id_to_piece(index) for index in range(each.get_piece_size())]
        for each in (again, tokenizer)
    ]
    assert sorted(pieces[0]) == sorted(pieces[1])
    assert pieces[0][:6] == pieces[1][:6]
    assert pieces[0][-344:] == pieces[1][-344:]


def test_tokenizer_config_has_the_keys_of_the_official_one(folder, shared_dir):
    official = json.loads(
        (shared_dir / "tokenizers" / "chatglm-6b" / "tokenizer_config.json").read_text("utf-8")
    )
    ours = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    del official["auto_map"]
    assert ours == {**official, "name_or_path": "embedded"}


def test_varint_round_trip(script):
    for value in (0, 1, 127, 128, 300, 2**21, 2**35):
        data = script.write_varint(value)
        assert script.read_varint(data, 0) == (value, len(data))


def test_iter_fields_refuses_other_kinds_of_fields(script):
    with pytest.raises(ValueError, match="field tag 0x8 at byte 0"):
        list(script.iter_fields(b"\x08\x01"))
