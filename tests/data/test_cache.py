from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tripletune.data.cache import EncodedFile, find_cache_dir, load_encoded
from tripletune.data.encode import encode_examples
from tripletune.data.readers import load_examples
from tripletune.errors import DataError, OutputError
from tripletune.schema import Example, Triplet


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    examples = [Example("甲位于乙。", (Triplet("甲", "位于", "乙"),)), Example("长" * 99)]
    examples += [Example(f"第{i}句") for i in range(5000)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
    return path


def test_cached_examples_are_those_that_encoding_gives(path: Path) -> None:
    found, report = load_encoded(path, CountingTokenizer(), **LIMITS, cache_dir=path.parent / "c")
    expected, expected_report = encode_examples(load_examples(path), CountingTokenizer(), **LIMITS)
    assert list(found) == expected
    assert report == expected_report
    assert report.dropped == [1]
    assert (found[-1], found[:2]) == (expected[-1], expected[:2])
    with pytest.raises(IndexError):
        found[len(expected)]


def test_second_run_does_not_tokenise(path: Path) -> None:
    first = CountingTokenizer()
    _, report = load_encoded(path, first, **LIMITS, cache_dir=path.parent / "c")
    second = CountingTokenizer()
    found, again = load_encoded(path, second, **LIMITS, cache_dir=path.parent / "c")
    assert (len(found), again) == (5001, report)
    # The probe that tells tokenizers apart: one prompt and one answer.
    assert second.num_calls == 2 < first.num_calls


def test_everything_that_matters_makes_a_new_file(path: Path) -> None:
    folder = path.parent / "c"
    files = set()
    for tokenizer, changes in (
        (CountingTokenizer(), {}),
        (CountingTokenizer(shift=1), {}),
        (CountingTokenizer(), {"max_target_tokens": 41}),
        (CountingTokenizer(), {"long_texts": "shorten"}),
        (CountingTokenizer(), {"relations": ["位于"]}),
    ):
        found, _ = load_encoded(path, tokenizer, **{**LIMITS, **changes}, cache_dir=folder)
        files.add(found.path)
    path.write_text(Example("新").to_json(), encoding="utf-8")
    found, _ = load_encoded(path, CountingTokenizer(), **LIMITS, cache_dir=folder)
    files.add(found.path)
    assert len(files) == 6


def test_damaged_cache_file_is_made_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, _ = load_encoded(path, CountingTokenizer(), **LIMITS, cache_dir=path.parent / "c")
    expected = list(found[:3])
    file = found.path
    del found
    file.write_bytes(b"no arrow")
    with pytest.raises(OSError, match="arrow"):
        EncodedFile(file)
    with caplog.at_level(logging.WARNING):
        again, _ = load_encoded(path, CountingTokenizer(), **LIMITS, cache_dir=path.parent / "c")
    assert again[:3] == expected
    assert "made again" in caplog.text


def test_failure_leaves_no_cache_file(path: Path) -> None:
    path.write_text(path.read_text("utf-8") + "broken\n", encoding="utf-8")
    with pytest.raises(DataError, match="broken JSON"):
        load_encoded(path, CountingTokenizer(), **LIMITS, cache_dir=path.parent / "c")
    assert {entry.suffix for entry in (path.parent / "c").iterdir()} <= {".lock"}


def count_calls(path: Path, folder: Path, results: Any) -> None:
    tokenizer = CountingTokenizer()
    load_encoded(path, tokenizer, **LIMITS, cache_dir=folder)
    results.put(tokenizer.num_calls)


def test_processes_at_the_same_time_tokenise_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (path, path.parent / "c", results)
    processes = [context.Process(target=count_calls, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    calls = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert calls[0] == 2
    assert calls[1] > 5000


def test_folder_that_cannot_be_made_is_named(path: Path) -> None:
    with pytest.raises(OutputError, match="cache cannot be written"):
        load_encoded(path, CountingTokenizer(), **LIMITS, cache_dir=path / "c")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPLETUNE_CACHE", "/a")
    assert find_cache_dir() == Path("/a")
    monkeypatch.delenv("TRIPLETUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert find_cache_dir() == Path("/b/tripletune")
