from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tripletune.cli.evaluate import evaluate_from_arguments, extract_in_ranks
from tripletune.errors import AdapterError, DataError
from tripletune.extraction.extractor import Extractor
from tripletune.extraction.job_ranks import JobRanks
from tripletune.schema import Example, Extraction, Triplet

EXAMPLES = [
    Example("甲位于乙。", (Triplet("甲", "位于", "乙"),)),
    Example("丙位于丁。", (Triplet("丙", "位于", "丁"), Triplet("丁", "包含", "丙"))),
    Example("天气不错。"),
    Example("戊位于己。", (Triplet("戊", "位于", "己"),)),
]
# Right, half of it, right, wrong: 2 of 3 predicted, 2 of 4 gold, 2 of 4 texts exact.
PREDICTED = {
    "甲位于乙。": (Triplet("甲", "位于", "乙"),),
    "丙位于丁。": (Triplet("丙", "位于", "丁"),),
    "天气不错。": (),
    "戊位于己。": (Triplet("己", "位于", "戊"),),
}


class FakeExtractor:
    options = SimpleNamespace(batch_size=1)

    def iter_extract(self, examples, on_text=None):
        for example in examples:
            yield replace(Extraction(example.text, PREDICTED[example.text]), id=example.id)


class FakeRanks(JobRanks):
    """One of several processes; `shares` is what the others have found so far, by rank."""

    def __init__(self, rank: int, size: int, shares: dict[int, list[Any]]) -> None:
        super().__init__()
        self.rank, self.size, self.shares = rank, size, shares

    def gather(self, value: list[Any]) -> list[Any]:
        self.shares[self.rank] = value
        return [self.shares[rank] for rank in range(self.size)] if self.is_first else []


@pytest.fixture
def loaded(monkeypatch, tmp_path) -> list:
    """A working directory with data and an adapter; what was loaded."""
    folder = tmp_path / "output" / "run"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data").mkdir()
    lines = "".join(example.to_json() + "\n" for example in EXAMPLES)
    (tmp_path / "data" / "val_triplet.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    calls: list = []

    def load(folder, **options):
        calls.append((folder, options))
        return FakeExtractor()

    monkeypatch.setattr(Extractor, "from_pretrained", load)
    return calls


def test_evaluate_prints_the_guides_figures(loaded, capsys):
    assert evaluate_from_arguments([]) == 0
    out = capsys.readouterr().out
    figures = [
        "总样本数: 4",
        "精确率: 0.6667",
        "召回率: 0.5000",
        "F1分数: 0.5714",
        "完全匹配准确率: 0.5000",
        "标注三元组: 4  预测三元组: 3  正确: 2",
    ]
    assert [line for line in out.splitlines() if line in figures] == figures


def test_evaluate_shows_examples_and_those_with_mistakes(loaded, capsys):
    evaluate_from_arguments(["--num_examples", "1"])
    out = capsys.readouterr().out
    assert "[例子] 甲位于乙。\n  标注: (甲, 位于, 乙)\n  预测: (甲, 位于, 乙)\n" in out
    assert (
        "[有错的例子] 丙位于丁。\n  标注: (丙, 位于, 丁); (丁, 包含, 丙)\n  预测: (丙, 位于, 丁)\n"
    ) in out
    assert out.count("例子] ") == 2


def test_evaluate_writes_report_and_predictions_beside_the_adapter(loaded, capsys):
    evaluate_from_arguments([])
    folder = Path("output/run/evaluation")
    names = ["predictions.jsonl", "report.html", "report.json", "report.md"]
    assert sorted(path.name for path in folder.iterdir()) == names
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [Example.from_record(json.loads(line)) for line in lines] == [
        Example(text, triplets) for text, triplets in PREDICTED.items()
    ]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["strict"]["f1"] == pytest.approx(4 / 7)
    assert str(folder / "report.html") in capsys.readouterr().out


def test_evaluate_takes_named_folders(loaded, tmp_path):
    evaluate_from_arguments(
        ["--adapter", "output/run", "--output_dir", "deep/report", "--batch_size", "2"]
    )
    assert (tmp_path / "deep/report/report.md").is_file()
    folder, options = loaded[0]
    assert folder == Path("output/run")
    assert options["batch_size"] == 2


def test_evaluate_without_any_training_says_what_to_do(loaded):
    Path("output/run/adapter_config.json").unlink()
    with pytest.raises(AdapterError, match="train first"):
        evaluate_from_arguments([])


def test_evaluate_names_file_and_line_of_a_bad_record(loaded, tmp_path):
    (tmp_path / "bad.jsonl").write_text(EXAMPLES[0].to_json() + "\n{broken\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl:2: "):
        evaluate_from_arguments(["--validation_file", "bad.jsonl"])
    assert loaded == []


def test_evaluate_names_an_unknown_flag(loaded, capsys):
    with pytest.raises(SystemExit) as exit_info:
        evaluate_from_arguments(["--adaptor", "x"])
    assert exit_info.value.code == 2
    assert "(did you mean) --adapter" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_evaluation_divided_among_processes_is_that_of_one(size):
    # 5 chunks of 8, the last one short.
    examples = [replace(EXAMPLES[number % 4], id=str(number)) for number in range(36)]
    shares: dict[int, list[Any]] = {}
    for rank in reversed(range(size)):
        ranks = FakeRanks(rank, size, shares)
        found = extract_in_ranks(ranks, FakeExtractor(), examples)
        assert rank == 0 or found == []
    assert found == list(FakeExtractor().iter_extract(examples))
