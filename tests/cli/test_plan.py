from __future__ import annotations

import re

import pytest

from tests.training.small_runs import build_small_settings
from tripletune.cli.plan import plan
from tripletune.errors import ConfigError, DataError, ResourceError


@pytest.fixture
def flags(tmp_path, tiny_model_dir, monkeypatch) -> list[str]:
    """A tiny model and 26 sentences, in a folder of their own."""
    settings = build_small_settings(tmp_path / "data", tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    data = str(settings.train_file)
    return [
        *("--model_name", str(tiny_model_dir)),
        *("--train_file", data, "--validation_file", data),
    ]


def test_plan_prints_the_table_for_a_card_that_is_not_here(flags, tmp_path, capsys):
    assert plan([*flags, "--gpu_memory", "8"]) == 0
    out = capsys.readouterr().out
    assert "自动选择配置: small (GPU显存 8.0 GB，小于 12 GB)" in out
    assert "显存与时间计划:" in out
    # 8 GiB less half a one for the driver, of which 92 % are usable.
    assert "可用 6.90 GiB (共 7.50 GiB)" in out
    assert "微批次 16 条" in out
    assert "按 RTX 3070 的速度" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_plan_tells_of_validation_texts_that_are_trained_on(flags, capsys):
    assert plan([*flags, "--gpu_memory", "8"]) == 0
    assert "验证集 26 条文本中有 26 条也在训练集中" in capsys.readouterr().out


def test_plan_takes_the_settings_of_a_training(flags, capsys):
    assert plan([*flags, "--gpu_memory", "24", "--config", "large", "--batch_size", "2"]) == 0
    assert "微批次 2 条" in capsys.readouterr().out


def test_plan_that_does_not_fit_exits_with_1(flags, capsys):
    code = plan([*flags, "--gpu_memory", "1", "--max_target_length", "2000000"])
    assert code == 1
    shown = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"放不进显存 \(does not fit\): memory: .*usable on this GPU", shown)


def test_plan_without_a_gpu_asks_for_the_card(flags, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ResourceError, match="--gpu_memory 8"):
        plan(flags)


@pytest.mark.parametrize("size", ["0", "-3", "many", "nan"])
def test_plan_refuses_a_card_without_size(flags, size, capsys):
    with pytest.raises(SystemExit) as exit_info:
        plan([*flags, "--gpu_memory", size])
    assert exit_info.value.code == 2
    assert f"'{size}': a number of GiB" in capsys.readouterr().err


def test_plan_names_a_target_that_matches_nothing(flags):
    with pytest.raises(ConfigError, match="'q_proj' matches no linear layer"):
        plan([*flags, "--gpu_memory", "8", "--lora_target_modules", "q_proj"])


def test_plan_names_a_missing_file(flags):
    with pytest.raises(DataError, match="no such file"):
        plan([*flags, "--gpu_memory", "8", "--train_file", "missing.jsonl"])
