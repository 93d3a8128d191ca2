from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tripletune.cli.merge import merge
from tripletune.extraction.loading import save_reading_settings
from tripletune.models import merge as library
from tripletune.models.merge import MergeCheck, MergePlan


def run(*arguments: str):
    app = typer.Typer()
    app.command("merge")(merge)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")

    def plan(adapter, output, **settings) -> MergePlan:
        assert settings == {"base": None, "dtype": "float16", "overwrite": False}
        return MergePlan("THUDM/chatglm-6b", adapter, output, "float16", 3 * 2**30, 5 * 2**30)

    monkeypatch.setattr(library, "plan_merge", plan)
    return tmp_path


def answer_with(monkeypatch, result: MergeCheck | None) -> None:
    monkeypatch.setattr(library, "merge_adapter", lambda plan, check, device: result)


def test_merge_says_what_it_needs_and_where_it_wrote(adapter, monkeypatch):
    answer_with(monkeypatch, None)
    result = run("--adapter", str(adapter), "--output", "merged", "--dtype", "float16")
    assert result.exit_code == 0
    assert "需要磁盘空间: 3.00 GiB (可用 5.00 GiB)" in result.output
    assert "基础模型: THUDM/chatglm-6b (float16, 未量化)" in result.output
    assert "已写入: merged" in result.output


@pytest.mark.parametrize("both_ways", [False, True])
def test_merge_says_what_other_programs_cannot_do(adapter, monkeypatch, both_ways):
    save_reading_settings(adapter, ["甲"], bidirectional_prompt=both_ways)
    answer_with(monkeypatch, None)
    result = run("--adapter", str(adapter), "--output", "merged", "--dtype", "float16")
    assert ("--bidirectional_prompt" in result.output) is both_ways


@pytest.mark.parametrize(("difference", "code"), [(0.01, 0), (0.5, 1)])
def test_merge_exits_with_what_the_check_found(adapter, monkeypatch, difference, code):
    answer_with(monkeypatch, MergeCheck(10, difference, 0.02, 79, 80))
    result = run("--adapter", str(adapter), "--output", "m", "--dtype", "float16", "--check")
    assert result.exit_code == code
    assert f"比较 10 个句子: 最大相对差 {difference:.2e} (允许 2e-02)" in result.output
    assert "首选词相同 79/80" in result.output
    assert ("--dtype float32" in result.output) is bool(code)
