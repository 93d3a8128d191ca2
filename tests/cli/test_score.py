from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from tripletune.cli.score import register
from tripletune.errors import ConfigError, DataError, OutputError

SCORE_KEYS = {"precision", "recall", "f1", "num_gold", "num_predicted", "num_correct"}


def row(text, *triplets):
    names = ("subject", "relation", "object")
    return {"text": text, "triplets": [dict(zip(names, t, strict=True)) for t in triplets]}


GOLD = [
    row("《Up》是一部电影。", ("Up", "类型", "电影")),
    row("张三毕业于北京大学。", ("张三", "毕业院校", "北京大学")),
    row("李四在 上海。", ("李四", "位于", "上海")),
]
PRED = [
    row("《Up》是一部电影。", ("《up》", "类型", "电影")),
    row("张三毕业于北京大学。", ("张三", "毕业院校", "北京")),
    row("李四在 上海。", ("李四", "位于", "上 海"), ("李四", "住在", "上海")),
]


@pytest.fixture
def files(tmp_path):
    for name, rows in (("gold", GOLD), ("pred", PRED)):
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_score_writes_every_score_to_json(files):
    result = run("score", files / "gold.jsonl", files / "pred.jsonl", "--json", files / "out.json")
    assert result.exit_code == 0
    record = json.loads((files / "out.json").read_text(encoding="utf-8"))
    numbers = {}
    for rule in ("strict", "duie", "normalised", "partial"):
        assert record[rule].keys() >= SCORE_KEYS
        numbers[rule] = tuple(
            record[rule][name] for name in ("num_gold", "num_predicted", "num_correct")
        )
    # 上 海 does not stand in the text and 《up》 differs in case: only 北京 overlaps.
    assert numbers == {
        "strict": (3, 4, 0),
        "duie": (3, 4, 1),
        "normalised": (3, 4, 1),
        "partial": (3, 4, 0.5),
    }


def test_score_prints_scores_and_error_classes(files):
    output = run("score", files / "gold.jsonl", files / "pred.jsonl").output
    assert "严格匹配 strict" in output
    assert "0.2857" in output
    assert "边界过短 boundary too short" in output


def test_score_shows_undefined_scores(files):
    (files / "empty.jsonl").write_text("", encoding="utf-8")
    output = run("score", files / "gold.jsonl", files / "empty.jsonl").output
    assert "未定义" in output
    assert "注意: 3 条标注没有对应的预测" in output


def test_score_writes_a_report(files):
    result = run("score", files / "gold.jsonl", files / "pred.jsonl", "--report", files / "r.html")
    assert result.exit_code == 0
    assert "pred.jsonl 对照 gold.jsonl" in (files / "r.html").read_text(encoding="utf-8")


def test_score_checks_relations_against_a_schema(files):
    schema = files / "schema.json"
    schema.write_text(json.dumps(["类型", "毕业院校", "位于"], ensure_ascii=False), "utf-8")
    output = run("score", files / "gold.jsonl", files / "pred.jsonl", "--schema", schema).output
    assert "关系不在模式中" in output


def test_score_uses_aliases(files):
    alias = files / "alias.tsv"
    alias.write_text("北京\t北京大学\n北京大学\t北京\n", encoding="utf-8")
    out = files / "out.json"
    run("score", files / "gold.jsonl", files / "pred.jsonl", "--alias", alias, "--json", out)
    assert json.loads(out.read_text(encoding="utf-8"))["duie"]["num_correct"] == 2


def test_score_raises_for_a_bad_line(files):
    (files / "bad.jsonl").write_text('{"text": "甲"}\n', encoding="utf-8")
    result = run("score", files / "gold.jsonl", files / "bad.jsonl")
    assert isinstance(result.exception, DataError)
    assert "bad.jsonl:1: record: field 'triplets' is missing" in str(result.exception)


def test_score_raises_for_a_json_path_that_cannot_be_written(files):
    out = files / "gold.jsonl" / "out.json"
    result = run("score", files / "gold.jsonl", files / "pred.jsonl", "--json", out)
    assert isinstance(result.exception, OutputError)
    assert "choose another path" in str(result.exception)


@pytest.mark.parametrize("flag", ["--json", "--report"])
def test_score_does_not_write_into_what_it_reads(files, flag):
    before = (files / "gold.jsonl").read_bytes()
    result = run("score", files / "gold.jsonl", files / "pred.jsonl", flag, files / "gold.jsonl")
    assert isinstance(result.exception, ConfigError)
    assert (files / "gold.jsonl").read_bytes() == before


def test_compare_prints_difference_and_p_value(files):
    gold, pred, out = files / "gold.jsonl", files / "pred.jsonl", files / "out.json"
    result = run("compare", pred, gold, "--gold", gold, "--json", out)
    assert result.exit_code == 0
    assert "+1.0000" in result.output
    assert "B 更好 3，B 更差 0" in result.output
    strict = json.loads(out.read_text(encoding="utf-8"))["rules"]["strict"]
    assert strict["difference"]["value"] == 1.0
    # Of the 8 ways to exchange three answers, two make a difference as large.
    assert strict["difference"]["p_value"] == pytest.approx(2 / 8, abs=0.04)


def test_compare_needs_gold(files):
    result = run("compare", files / "pred.jsonl", files / "pred.jsonl")
    assert result.exit_code == 2
    assert "--gold" in result.output


def test_score_imports_neither_torch_nor_transformers(files):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tripletune.cli.score import score\n"
        f"score(Path({str(files / 'gold.jsonl')!r}), Path({str(files / 'pred.jsonl')!r}))\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split("\n")[-1] == "[]"
