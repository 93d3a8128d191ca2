from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.training.small_runs import adapter_bytes, build_small_settings, train
from tripletune.config import TrainingSettings
from tripletune.data.encode import encode_examples
from tripletune.data.relation_schema import RelationSchema, learn_schema
from tripletune.errors import DataError
from tripletune.models.loading import load_tokenizer
from tripletune.schema import Example, Triplet
from tripletune.training.encoding import encode_data

NO_RELATIONS = RelationSchema(())
ONE = Example("甲公司位于乙市。", (Triplet("甲公司", "位于", "乙市"),))
LONG = Example("很长的句子，" * 60)


@pytest.fixture
def tokenizer(tiny_model_dir):
    return load_tokenizer(str(tiny_model_dir))


def build_settings(folder: Path, **changes) -> TrainingSettings:
    return TrainingSettings(output_dir=folder / "out", max_source_length=100).changed(**changes)


def test_encode_data_keeps_what_fits_and_names_the_rest(tmp_path, tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="tripletune"):
        encoded = encode_data(
            [LONG, ONE],
            tokenizer,
            build_settings(tmp_path),
            path=Path("x.jsonl"),
            schema=NO_RELATIONS,
        )
    expected, _ = encode_examples([ONE], tokenizer, max_source_tokens=100, max_target_tokens=256)
    assert list(encoded) == expected
    assert caplog.messages == [
        "x.jsonl: 共 2 条, 保留 1 条; 文本过长丢弃 1 条 (max_source_length=100), "
        "答案过长丢弃 0 条 (max_target_length=256), 缩短文本 0 条"
    ]


def test_encode_data_refuses_data_of_which_nothing_fits(tmp_path, tokenizer):
    settings = build_settings(tmp_path)
    with pytest.raises(DataError, match=r"^x\.jsonl: none of the 1 examples fits max_source_len"):
        encode_data([LONG], tokenizer, settings, path=Path("x.jsonl"), schema=NO_RELATIONS)


@pytest.mark.parametrize("named", [False, True])
def test_encode_data_writes_where_it_was_asked_to_and_nowhere_else(tmp_path, tokenizer, named):
    settings = build_settings(tmp_path, cache_dir=tmp_path / "mine" if named else None)
    encoded = encode_data([ONE], tokenizer, settings, path=Path("x.jsonl"), schema=NO_RELATIONS)
    folder = tmp_path / "mine" if named else tmp_path / "out" / "token_cache"
    assert encoded.path.parent == folder
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {folder}


def test_encode_data_asks_for_a_few_relations_at_a_time(tmp_path, tokenizer):
    two = Example("丙毕业于丁大学。", (Triplet("丙", "毕业院校", "丁大学"),))
    encoded = encode_data(
        [ONE, two],
        tokenizer,
        build_settings(tmp_path, relations_per_prompt=1),
        path=Path("x.jsonl"),
        schema=learn_schema([ONE, two]),
    )
    asked = sorted(
        (
            tokenizer.decode_text(example.input_ids[: example.num_prompt_tokens]),
            tokenizer.decode_text(example.input_ids[example.num_prompt_tokens : -1]),
        )
        for example in encoded
    )
    # This tokenizer writes full-width commas as narrow ones.
    opening = "请从以下文本中抽取三元组,格式为(主体, 关系, 客体),关系限于"
    assert asked == [
        (f"{opening}位于:\n丙毕业于丁大学。", "无"),
        (f"{opening}位于:\n甲公司位于乙市。", "(甲公司, 位于, 乙市)"),
        (f"{opening}毕业院校:\n丙毕业于丁大学。", "(丙, 毕业院校, 丁大学)"),
        (f"{opening}毕业院校:\n甲公司位于乙市。", "无"),
    ]


def test_encode_data_refuses_to_list_relations_that_there_are_not(tmp_path, tokenizer):
    settings = build_settings(tmp_path, relations_per_prompt=3)
    with pytest.raises(DataError, match="relations_per_prompt: 3 cannot be listed, because the tr"):
        encode_data([Example("甲")], tokenizer, settings, path=Path("x.jsonl"), schema=NO_RELATIONS)


def test_run_is_the_same_with_a_warm_cache(tmp_path, tiny_model_dir, monkeypatch):
    settings = build_small_settings(tmp_path, tiny_model_dir, max_steps=2, save_steps=4)
    cold = settings.changed(output_dir=tmp_path / "cold", cache_dir=tmp_path / "cache")
    warm = cold.changed(output_dir=tmp_path / "warm")
    train(cold)
    monkeypatch.setattr("tripletune.data.cache.encode_examples", lambda *a, **k: 1 / 0)
    train(warm)
    assert adapter_bytes(tmp_path / "warm") == adapter_bytes(tmp_path / "cold")
    assert not (tmp_path / "warm" / "token_cache").exists()
