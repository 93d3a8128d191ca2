from __future__ import annotations

import logging
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tripletune.data.cache import EncodedFile, load_encoded
from tripletune.data.encode import encode_examples
from tripletune.errors import OutputError
from tripletune.schema import Example, Span, Triplet


class CountingTokenizer:
    """Characters as tokens, end token 1; counts how often it is asked."""

    eos_token_id = 1

    def __init__(self, shift: int = 0):
        self.shift = shift
        self.num_calls = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        self.num_calls += 1
        return {"input_ids": [ord(character) + self.shift for character in text]}


LIMITS: dict[str, Any] = {"max_source_tokens": 60, "max_target_tokens": 40}
ONE = Example("甲位于乙。", (Triplet("甲", "位于", "乙"),))
TWO = Example(
    "甲在乙丙乙",
    (Triplet("甲", "在", "乙", object_span=Span(4, 5)), Triplet("甲", "有", "丙")),
)
EXAMPLES = [ONE, Example("长" * 99), *(Example(f"第{i}句") for i in range(5000))]


def test_cached_examples_are_those_that_encoding_gives(tmp_path: Path) -> None:
    found, report = load_encoded(EXAMPLES, CountingTokenizer(), **LIMITS, cache_dir=tmp_path)
    expected, expected_report = encode_examples(EXAMPLES, CountingTokenizer(), **LIMITS)
    assert list(found) == expected
    assert found.lengths == [len(example) for example in expected]
    assert report == expected_report
    assert report.dropped == [1]
    assert (found[-1], found[:2]) == (expected[-1], expected[:2])
    assert list(pickle.loads(pickle.dumps(found))) == expected
    with pytest.raises(IndexError):
        found[len(expected)]


def test_cache_of_nothing_is_empty(tmp_path: Path) -> None:
    found, report = load_encoded(EXAMPLES[1:2], CountingTokenizer(), **LIMITS, cache_dir=tmp_path)
    assert (list(found), found.lengths, report.num_long_texts) == ([], [], 1)


def test_second_run_does_not_tokenise(tmp_path: Path) -> None:
    first = CountingTokenizer()
    cold, report = load_encoded(EXAMPLES, first, **LIMITS, cache_dir=tmp_path / "c")
    second = CountingTokenizer()
    warm, again = load_encoded(EXAMPLES, second, **LIMITS, cache_dir=tmp_path / "c")
    assert (list(warm), again) == (list(cold), report)
    # The probe that tells tokenizers apart: one prompt and one answer.
    assert second.num_calls == 2 < first.num_calls


class NamedTokenizer(CountingTokenizer):
    """One with a vocabulary that the probe does not show."""

    def __init__(self, vocabulary: dict[str, int]):
        super().__init__()
        self.vocabulary = vocabulary

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


class MergingTokenizer(CountingTokenizer):
    """One with rules that neither vocabulary nor probe show."""

    def __init__(self, rules: str):
        super().__init__()
        self.backend_tokenizer = self
        self.rules = rules

    def to_str(self) -> str:
        return self.rules


def test_everything_that_matters_makes_a_new_file(tmp_path: Path) -> None:
    plain = CountingTokenizer()
    cases: list[tuple[list[Example], CountingTokenizer, dict[str, Any]]] = [
        ([ONE], plain, {}),
        ([ONE], CountingTokenizer(shift=1), {}),
        ([ONE], NamedTokenizer({"甲": 7}), {}),
        ([ONE], NamedTokenizer({"甲": 8}), {}),
        ([ONE], MergingTokenizer("甲 乙"), {}),
        ([ONE], MergingTokenizer("乙 甲"), {}),
        ([ONE], plain, {"max_source_tokens": 61}),
        ([ONE], plain, {"max_target_tokens": 41}),
        ([ONE], plain, {"long_texts": "shorten"}),
        ([ONE], plain, {"relations": [["位于"]]}),
        ([ONE], plain, {"relations": [["位于", "在"]]}),
        ([ONE], plain, {"relations": [["位", "于在"]]}),
        ([ONE, ONE], plain, {}),
        ([Example(ONE.text)], plain, {}),
        ([Example(ONE.text, (Triplet("甲", "位", "于乙"),))], plain, {}),
        ([Example(ONE.text, (Triplet("甲位", "于", "乙"),))], plain, {}),
        ([Example(ONE.text, ONE.triplets * 2)], plain, {}),
        ([Example(TWO.text, TWO.triplets)], plain, {}),
        ([Example(TWO.text, tuple(replace(t, object_span=None) for t in TWO.triplets))], plain, {}),
    ]
    files = {
        load_encoded(examples, tokenizer, **{**LIMITS, **changes}, cache_dir=tmp_path)[0].path
        for examples, tokenizer, changes in cases
    }
    assert len(files) == len(cases)


def test_changed_prompt_makes_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = load_encoded([ONE], CountingTokenizer(), **LIMITS, cache_dir=tmp_path)
    monkeypatch.setattr("tripletune.data.prompts.QUERY", "抽取:\n{text}")
    after, _ = load_encoded([ONE], CountingTokenizer(), **LIMITS, cache_dir=tmp_path)
    assert before.path != after.path
    assert len(after[0]) < len(before[0])


def test_damaged_cache_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, _ = load_encoded(EXAMPLES, CountingTokenizer(), **LIMITS, cache_dir=tmp_path)
    expected = list(found[:3])
    file = found.path
    del found
    file.write_bytes(b"no arrow")
    with pytest.raises(OSError, match="arrow"):
        EncodedFile(file)
    with caplog.at_level(logging.WARNING):
        again, _ = load_encoded(EXAMPLES, CountingTokenizer(), **LIMITS, cache_dir=tmp_path)
    assert again[:3] == expected
    assert "made again" in caplog.text


class FailingTokenizer(CountingTokenizer):
    """Fails in the middle."""

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        if "第4000句" in text:
            raise RuntimeError("out of order")
        return super().__call__(text, **options)


def test_failure_leaves_no_cache_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of order"):
        load_encoded(EXAMPLES, FailingTokenizer(), **LIMITS, cache_dir=tmp_path)
    assert {entry.suffix for entry in tmp_path.iterdir()} <= {".lock"}


def count_calls(folder: Path, results: Any) -> None:
    tokenizer = CountingTokenizer()
    load_encoded(EXAMPLES, tokenizer, **LIMITS, cache_dir=folder)
    results.put(tokenizer.num_calls)


def test_processes_at_the_same_time_tokenise_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=count_calls, args=(tmp_path, results)) for _ in range(2)]
    for process in processes:
        process.start()
    calls = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert calls[0] == 2
    assert calls[1] > 5000


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        OutputError, match=r"file/c: the token cache cannot be written: .*cache_dir"
    ):
        load_encoded([ONE], CountingTokenizer(), **LIMITS, cache_dir=tmp_path / "file" / "c")
