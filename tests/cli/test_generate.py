from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from tripletune.cli.generate import generate
from tripletune.errors import DataError

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(generate)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_generate_writes_files_and_says_what_they_hold(tmp_path):
    result = run("--output-dir", tmp_path, "--num-train", 30, "--num-validation", 5)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "train_triplet.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 30
    assert "train_triplet.jsonl: 30 条" in result.output
    assert "val_triplet.jsonl: 5 条" in result.output
    assert "示例: " in result.output


def test_generate_writes_unseen_phrasings_and_a_report(tmp_path):
    report = tmp_path / "report.json"
    arguments = ("--num-train", 50, "--num-validation", 10, "--num-unseen-phrasing", 8)
    result = run("--output-dir", tmp_path, *arguments, "--difficulty", "hard", "--json", report)
    assert result.exit_code == 0, result.output
    record = json.loads(report.read_text(encoding="utf-8"))
    assert {name: part["num_sentences"] for name, part in record.items()} == {
        "train_triplet.jsonl": 50,
        "val_triplet.jsonl": 10,
        "val_unseen_phrasing.jsonl": 8,
    }


def test_generate_keeps_to_the_largest_number_of_triplets(tmp_path):
    result = run("--output-dir", tmp_path, "--num-train", 200, "--max-triplets", 6)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "train_triplet.jsonl").read_text(encoding="utf-8").splitlines()
    counts = {len(json.loads(line)["triplets"]) for line in lines}
    assert max(counts) in (5, 6)


def test_generate_takes_templates_and_facts(tmp_path):
    templates, facts = tmp_path / "t.jsonl", tmp_path / "f.jsonl"
    types = '{"type": "病", "names": ["感冒", "伤风"], "shared": true}\n'
    templates.write_text(types, encoding="utf-8")
    fact = {"subject": "感冒", "relation": "别名", "object": "伤风"}
    fact.update(subject_type="病", object_type="病")
    facts.write_text(json.dumps(fact, ensure_ascii=False) + "\n", encoding="utf-8")
    counts = ("--num-train", 20, "--num-validation", 5, "--max-triplets", 1)
    result = run("--output-dir", tmp_path, "--templates", templates, "--facts", facts, *counts)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "train_triplet.jsonl").read_text(encoding="utf-8")
    found = {
        (triplet["subject"], triplet["relation"], triplet["object"])
        for line in text.splitlines()
        for triplet in json.loads(line)["triplets"]
    }
    assert found == {("感冒", "别名", "伤风")}


def test_generate_raises_a_named_error_for_a_broken_file(tmp_path):
    templates = tmp_path / "t.jsonl"
    templates.write_text("{oops\n", encoding="utf-8")
    result = run("--output-dir", tmp_path / "out", "--templates", templates)
    assert isinstance(result.exception, DataError)
    assert "t.jsonl:1: " in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--num-train", 0), ("--max-triplets", 9)])
def test_generate_refuses_numbers_out_of_range(tmp_path, arguments):
    assert run("--output-dir", tmp_path, *arguments).exit_code == 2
