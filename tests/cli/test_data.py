from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tripletune.cli.data import data_app
from tripletune.data.readers import load_examples
from tripletune.data.writers import write_examples
from tripletune.errors import ConfigError, DataError, ModelError
from tripletune.schema import Example, Triplet

LINE = '{"text": "%s", "triplets": [{"subject": "甲", "relation": "%s", "object": "乙"}]}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text(
        LINE % ("甲位于乙", "位于") + '{"text": "无", "triplets": []}\n', encoding="utf-8"
    )
    (tmp_path / "dev.jsonl").write_text(
        LINE % ("甲在乙", "位于") + '{"text": "空", "triplets": []}\n', encoding="utf-8"
    )
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def test_convert_says_what_it_did(folder: Path) -> None:
    source = folder / "in.txt"
    source.write_text("甲\t乙\t位于\t甲位于乙\n甲\t乙\t位于\t\n", encoding="utf-8")
    result = run("convert", source, folder / "out.jsonl", "--to", "instruction")
    assert result.exit_code == 0
    assert "格式: tsv -> instruction" in result.output
    assert "样本: 1  三元组: 1" in result.output
    assert "丢弃的记录: 1 (empty_text 1)" in result.output
    assert json.loads((folder / "out.jsonl").read_text("utf-8"))["output"] == "(甲, 位于, 乙)"


def test_convert_of_nothing_usable_ends_with_2(folder: Path) -> None:
    source = folder / "in.jsonl"
    source.write_text('{"text": "", "triplets": []}\n', encoding="utf-8")
    result = run("convert", source, folder / "out.jsonl")
    assert result.exit_code == 2
    assert "没有一条可用的记录" in result.stderr


def test_convert_passes_errors_on(folder: Path) -> None:
    result = run("convert", folder / "none", folder / "out")
    assert isinstance(result.exception, DataError)


def test_check_of_clean_files_ends_with_0(folder: Path) -> None:
    result = run("check", folder / "train.jsonl", folder / "dev.jsonl")
    assert (result.exit_code, "错误 0  警告 0" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("fail_on", "code"), [("error", 1), ("warning", 1), ("info", 1), ("never", 0)]
)
def test_check_ends_with_1_when_something_is_found(folder: Path, fail_on: str, code: int) -> None:
    (folder / "dev.jsonl").write_text(LINE % ("甲位于乙", "位于"), encoding="utf-8")
    result = run("check", folder / "train.jsonl", folder / "dev.jsonl", "--fail-on", fail_on)
    assert result.exit_code == code
    assert "leak_exact" in result.output


def test_check_of_remarks_only_fails_on_info(folder: Path) -> None:
    path = folder / "dev.jsonl"
    assert run("check", path).exit_code == 0
    assert run("check", path, "--fail-on", "info").exit_code == 1


def test_check_writes_page_and_json(folder: Path) -> None:
    page, record = folder / "p.html", folder / "p.json"
    run("check", folder / "train.jsonl", "--html", page, "--json", record)
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert json.loads(record.read_text("utf-8"))["files"][0]["examples"] == 2


def test_check_takes_a_schema(folder: Path) -> None:
    (folder / "schema.json").write_text('["属于"]', encoding="utf-8")
    result = run("check", folder / "train.jsonl", "--schema", folder / "schema.json")
    assert result.exit_code == 1
    assert "unknown_relation" in result.output


def test_check_names_a_model_that_cannot_be_loaded(folder: Path) -> None:
    result = run("check", folder / "train.jsonl", "--model", folder / "none")
    assert isinstance(result.exception, ModelError)


def test_fix_removes_leaks(folder: Path) -> None:
    (folder / "dev.jsonl").write_text(LINE % ("甲位于乙", "位于"), encoding="utf-8")
    out = folder / "fixed.jsonl"
    result = run("fix", folder / "train.jsonl", out, "--against", folder / "dev.jsonl")
    assert result.exit_code == 0
    assert "读取: 2  写出: 1" in result.output
    assert out.read_text("utf-8") == '{"text": "无", "triplets": []}\n'


def test_split_writes_the_named_parts(folder: Path) -> None:
    path = folder / "all.jsonl"
    path.write_text("".join(LINE % (f"甲{i}", "位于") for i in range(20)), encoding="utf-8")
    result = run("split", path, folder / "parts", "--shares", "train=3,dev=1", "--mode", "random")
    assert result.exit_code == 0
    sizes = [len((folder / "parts" / f"{n}.jsonl").read_text("utf-8").splitlines())
             for n in ("train", "dev")]  # fmt: skip
    assert sizes == [15, 5]


@pytest.mark.parametrize("shares", ["train", "train=x", "../a=1,b=1"])
def test_split_names_shares_it_cannot_read(folder: Path, shares: str) -> None:
    result = run("split", folder / "train.jsonl", folder / "parts", "--shares", shares)
    assert isinstance(result.exception, ConfigError)


def test_augment_writes_each_example_and_its_copies(folder: Path) -> None:
    path = folder / "facts.jsonl"
    examples = [Example(f"{n}写了诗。", (Triplet("诗", "作者", n),)) for n in ("张三", "李四")]
    write_examples(examples, path)
    result = run("augment", path, folder / "more.jsonl", "--copies", "1", "--share", "1")
    assert result.exit_code == 0
    assert result.output.startswith("读取: 2  副本: 2")
    texts = [example.text for example in load_examples(folder / "more.jsonl")]
    assert texts == ["张三写了诗。", "李四写了诗。", "李四写了诗。", "张三写了诗。"]


def test_schema_learns_and_merges(folder: Path) -> None:
    (folder / "other.json").write_text('["公司_位于_地点", "作者"]', encoding="utf-8")
    out = folder / "schema.json"
    result = run("schema", folder / "train.jsonl", folder / "other.json", "--output", out)
    assert json.loads(out.read_text("utf-8")) == {
        "relations": [
            {"name": "位于", "types": [["公司", "地点"]], "count": 1},
            {"name": "作者", "types": []},
        ]
    }
    assert result.exit_code == 1
    assert "'作者' has no types, others have" in result.output


@pytest.mark.parametrize("command", ["augment", "convert", "fix"])
def test_input_is_not_written_into(command: str, folder: Path) -> None:
    path = folder / "train.jsonl"
    before = path.read_bytes()
    result = run(command, path, path)
    assert isinstance(result.exception, ConfigError)
    assert path.read_bytes() == before


@pytest.mark.parametrize("flag", ["--json", "--html"])
def test_report_of_a_check_is_not_written_into_the_data(flag: str, folder: Path) -> None:
    path = folder / "train.jsonl"
    before = path.read_bytes()
    result = run("check", path, flag, path)
    assert isinstance(result.exception, ConfigError)
    assert path.read_bytes() == before


def test_schema_is_not_written_into_data_but_into_a_schema_that_was_read(folder: Path) -> None:
    path = folder / "train.jsonl"
    before = path.read_bytes()
    result = run("schema", path, "--output", path)
    assert isinstance(result.exception, ConfigError)
    assert path.read_bytes() == before
    known = folder / "schema.json"
    known.write_text('["作者"]', encoding="utf-8")
    run("schema", known, path, "--output", known)
    names = [relation["name"] for relation in json.loads(known.read_text("utf-8"))["relations"]]
    assert names == ["作者", "位于"]
