from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.config import TrainingSettings
from tripletune.schema import Example, Triplet
from tripletune.training.run_data import load_run_data

FACT = Triplet("甲", "位于", "乙")


def write(path: Path, *texts: str) -> Path:
    examples = [Example(text, (FACT,)) for text in texts]
    path.write_text("".join(example.to_json() + "\n" for example in examples), encoding="utf-8")
    return path


def build_settings(folder: Path, *validation: str) -> TrainingSettings:
    return TrainingSettings(
        train_file=write(folder / "train.jsonl", "甲位于乙。", "甲在乙，甲位于乙。"),
        validation_file=write(folder / "val.jsonl", *validation),
    )


def test_examples_and_their_relations_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_run_data(build_settings(tmp_path, "听说甲位于乙。"))
    assert [example.text for example in data.training] == ["甲位于乙。", "甲在乙，甲位于乙。"]
    assert [example.text for example in data.validation] == ["听说甲位于乙。"]
    assert data.schema.names == ("位于",)
    assert not caplog.messages


def test_validation_texts_that_are_trained_on_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = build_settings(tmp_path, "听说甲位于乙。", "甲位于乙")
    load_run_data(settings)
    assert caplog.messages == [
        "验证集 2 条文本中有 1 条也在训练集中 (如 '甲位于乙')，分数会虚高；去掉它们: "
        f"tripletune data fix {settings.train_file} 新文件 --against {settings.validation_file}"
    ]
