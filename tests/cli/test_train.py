from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from config.train_config_simple import TrainingConfig
from tripletune.cli import train as area
from tripletune.cli.train import set_up_logging, train, train_from_arguments, train_with_settings
from tripletune.config import PRESET_VALUES, TrainingSettings, build_settings
from tripletune.errors import DataError
from tripletune.schema import Extraction, Triplet


class FakeRun:
    """Records the steps and gives F1 0.0 before and 0.9 after training."""

    made: ClassVar[list[FakeRun]] = []
    num_scored = 101

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.steps: list[str] = []
        FakeRun.made.append(self)

    def setup_model_and_tokenizer(self) -> None:
        self.steps.append("setup")

    def prepare_datasets(self) -> None:
        self.steps.append("data")

    def train(self) -> None:
        self.steps.append("train")

    def score(self) -> dict[str, float]:
        self.steps.append("score")
        f1 = 0.9 if "train" in self.steps else 0.0
        return {"precision": f1, "recall": f1, "f1": f1}

    def extract(self, texts: list[str]) -> list[Extraction]:
        return [Extraction(text, (Triplet("星海科技", "总部", "杭州"),)) for text in texts]


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A 16 GB GPU, a folder with data, no terminal, no model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tripletune.training.machine.gpu_memory_gib", lambda: 16.0)
    monkeypatch.setattr("tripletune.training.run.TrainingRun", FakeRun)
    monkeypatch.setattr(area, "set_up_logging", lambda: None)
    monkeypatch.setattr(sys, "stdin", None)
    FakeRun.made = []
    (tmp_path / "data").mkdir()
    for name in ("train", "val"):
        (tmp_path / "data" / f"{name}_triplet.jsonl").touch()


def trained_settings(*flags: str, **options) -> TrainingSettings:
    assert train_from_arguments(flags, **options) == 0
    (run,) = FakeRun.made
    return run.settings


def test_train_chooses_the_preset_of_the_gpu_and_says_why(caplog):
    caplog.set_level(logging.INFO, logger="tripletune")
    assert trained_settings() == build_settings(PRESET_VALUES["medium"])
    assert "自动选择配置: medium (GPU显存 16.0 GB，在 12-24 GB 之间)" in caplog.messages


@pytest.mark.parametrize("preset", PRESET_VALUES)
def test_train_takes_the_named_preset(preset):
    assert trained_settings("--config", preset) == build_settings(PRESET_VALUES[preset])


def test_train_flags_override_the_preset():
    settings = trained_settings("--config", "small", "--batch_size", "2", "--epochs", "5")
    expected = {**PRESET_VALUES["small"], "batch_size": 2, "num_epochs": 5}
    # A micro-batch that was asked for is not made larger.
    assert settings == build_settings({**expected, "join_micro_batches": False})


def test_train_takes_a_class_for_each_preset():
    class Mine(TrainingConfig):
        LORA_R = 3

    assert trained_settings("--config", "medium", configs={"medium": Mine}).lora_r == 3


def test_train_takes_one_class_whatever_the_machine():
    class Mine(TrainingConfig):
        LORA_R = 3

    assert trained_settings("--seed", "5", configs=Mine) == TrainingSettings(lora_r=3, seed=5)


def test_train_command_runs_with_its_flags():
    assert train(["--config", "fast", "--max_steps", "7"]) == 0
    assert FakeRun.made[0].settings.max_steps == 7


def test_train_scores_before_and_after_and_shows_an_extraction(caplog, capsys):
    caplog.set_level(logging.INFO, logger="tripletune")
    train_from_arguments(["--config", "medium"])
    assert FakeRun.made[0].steps == ["setup", "data", "score", "train", "score"]
    assert caplog.messages == [
        "微调前 F1: 0.0000 (验证集 101 条)",
        "微调后 F1: 0.9000  精确率: 0.9000  召回率: 0.9000 (验证集 101 条，微调前 F1 0.0000)",
    ]
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"文本: {area.SAMPLE_SENTENCE}",
        "  (星海科技, 总部, 杭州)",
    ]


def test_train_extracts_from_the_sentence_the_user_types(monkeypatch, capsys):
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: " 甲位于乙。 ")
    train_from_arguments(["--config", "medium"])
    assert "文本: 甲位于乙。\n" in capsys.readouterr().out


def test_train_takes_the_sample_sentence_at_the_end_of_input(monkeypatch, capsys):
    class Terminal:
        def isatty(self) -> bool:
            return True

    def end(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", end)
    assert train_from_arguments(["--config", "medium"]) == 0
    assert f"文本: {area.SAMPLE_SENTENCE}\n" in capsys.readouterr().out


def test_train_without_a_gpu_says_so_and_takes_the_embedded_model(monkeypatch, caplog):
    monkeypatch.setattr("tripletune.training.machine.gpu_memory_gib", lambda: None)
    caplog.set_level(logging.INFO, logger="tripletune")
    settings = trained_settings(configs=TrainingConfig)
    assert settings.model_name == "embedded"
    assert "没有检测到CUDA GPU" in caplog.messages[0]


def test_train_makes_the_default_data_when_it_is_missing():
    Path("data/val_triplet.jsonl").unlink()
    calls = []
    trained_settings("--config", "medium", make_data=calls.append)
    assert calls == [Path("data")]


def test_train_says_how_to_make_the_default_data():
    Path("data/train_triplet.jsonl").unlink()
    message = r"^data/train_triplet\.jsonl: .*cd data && python generate_triplet_data\.py"
    with pytest.raises(DataError, match=message):
        train_from_arguments(["--config", "medium"])
    assert FakeRun.made == []


def test_train_never_makes_data_in_place_of_a_file_that_was_named():
    calls = []
    with pytest.raises(DataError, match=r"^mine\.jsonl: .*check the path \(--train_file"):
        train_from_arguments(["--train_file", "mine.jsonl"], make_data=calls.append)
    assert calls == []


def test_train_with_settings_takes_another_run():
    class OtherRun(FakeRun):
        pass

    train_with_settings(TrainingSettings(), explicit=set(), run_class=OtherRun)
    assert type(FakeRun.made[0]) is OtherRun


def test_set_up_logging_shows_the_guides_lines(capsys):
    package = logging.getLogger("tripletune")
    before = (package.handlers, package.level, package.propagate)
    try:
        set_up_logging()
        set_up_logging()
        package.info("加载分词器...")
    finally:
        package.handlers, package.level, package.propagate = before
    assert capsys.readouterr().out == "INFO - 加载分词器...\n"


@pytest.mark.parametrize(("rank", "level"), [(None, logging.INFO), ("0", 20), ("1", 30)])
def test_only_the_first_process_logs_what_is_no_warning(monkeypatch, rank, level):
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    set_up_logging()
    assert logging.getLogger("tripletune").level == level
