from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tripletune.cli.inference import SAMPLES, infer_from_arguments
from tripletune.errors import AdapterError, ConfigError, DataError, OutputError
from tripletune.extraction.extractor import Extractor
from tripletune.schema import Extraction, Triplet

FACT = Triplet("甲", "位于", "乙", confidence=0.75)


class FakeExtractor:
    """Finds one triplet in a text with 甲, nothing in any other."""

    def __init__(self) -> None:
        self.loaded: list = []

    def load(self, folder, **options):
        self.loaded.append((folder, options))
        return self

    def extract(self, texts):
        return [
            Extraction(text, (FACT,)) if "甲" in text else Extraction(text, problems=("nothing",))
            for text in texts
        ]


@pytest.fixture
def extractor(monkeypatch, tmp_path) -> FakeExtractor:
    """A working directory with one trained adapter, and what is loaded from it."""
    folder = tmp_path / "output" / "run"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    fake = FakeExtractor()
    monkeypatch.setattr(Extractor, "from_pretrained", fake.load)
    return fake


def type_in(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))


def test_inference_prints_the_triplets_of_its_arguments(extractor, capsys):
    assert infer_from_arguments(["甲位于乙。", "天气不错。"]) == 0
    assert capsys.readouterr().out == (
        "文本: 甲位于乙。\n  (甲, 位于, 乙)  置信度 0.75\n"
        "文本: 天气不错。\n  (没有三元组)\n  ! nothing\n"
    )


def test_inference_takes_the_last_training(extractor):
    infer_from_arguments(["甲", "--batch_size", "3", "--base_model", "base"])
    folder, options = extractor.loaded[0]
    assert folder == Path("output/run")
    assert (options["batch_size"], options["base_model"]) == (3, "base")


def test_inference_takes_the_named_adapter(extractor, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").touch()
    infer_from_arguments(["甲", "--adapter", str(other)])
    assert extractor.loaded[0][0] == other


def test_inference_reads_a_text_file_and_writes_lines(extractor, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("\ufeff甲位于乙。\n\n天气不错。\n", encoding="utf-8")
    assert infer_from_arguments(["--input", "in.txt", "--output", "out.jsonl"]) == 0
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["甲位于乙。", "天气不错。"]
    assert json.loads(lines[0])["triplets"] == [FACT.to_record()]
    assert capsys.readouterr().out == "2 条结果写入 out.jsonl\n"


def test_inference_does_not_write_into_its_input(extractor, tmp_path):
    (tmp_path / "in.txt").write_text("甲位于乙。\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'in\.txt' is one of the files read"):
        infer_from_arguments(["--input", "in.txt", "--output", "in.txt"])
    assert (tmp_path / "in.txt").read_text(encoding="utf-8") == "甲位于乙。\n"


def test_inference_reads_the_texts_of_json_lines(extractor, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('{"text": "甲位于乙。"}\n', encoding="utf-8")
    infer_from_arguments(["--input", "in.jsonl"])
    assert capsys.readouterr().out.startswith("文本: 甲位于乙。\n")


def test_inference_names_the_line_of_a_bad_record(extractor, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "甲"}\n{broken\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl:2: "):
        infer_from_arguments(["--input", "in.jsonl"])
    assert extractor.loaded == []


def test_inference_without_arguments_is_a_dialogue(extractor, monkeypatch, capsys):
    type_in(monkeypatch, "1", "", "甲位于乙。", "QUIT", "甲")
    assert infer_from_arguments([]) == 0
    out = capsys.readouterr().out
    assert [sample for sample in SAMPLES if sample not in out] == []
    assert out.count("文本: ") == 2
    assert f"文本: {SAMPLES[0]}\n" in out


@pytest.mark.parametrize("word", ["quit", "exit", "q", "退出"])
def test_inference_dialogue_can_be_left(extractor, monkeypatch, capsys, word):
    type_in(monkeypatch, word, "甲")
    assert infer_from_arguments([]) == 0
    assert "文本: " not in capsys.readouterr().out


def test_inference_dialogue_ends_with_its_input(extractor, monkeypatch):
    type_in(monkeypatch, "甲位于乙。")
    assert infer_from_arguments([]) == 0


def test_inference_dialogue_reads_another_number_as_a_text(extractor, monkeypatch, capsys):
    type_in(monkeypatch, "99")
    infer_from_arguments([])
    assert "文本: 99\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^in\.txt: no such file; check the path \(--input\)"),
        (b"\n \n", r"^in\.txt: the file has no text; give one sentence a line"),
        ("甲位于乙".encode("gb18030"), r"^in\.txt: not UTF-8 at byte 0; .*iconv -f GB18030"),
    ],
)
def test_inference_says_what_is_wrong_with_a_file(extractor, tmp_path, content, message):
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        infer_from_arguments(["--input", "in.txt"])
    assert extractor.loaded == []


def test_inference_says_that_the_input_is_a_folder(extractor):
    with pytest.raises(DataError, match=r"^output: this is a folder; give a file"):
        infer_from_arguments(["--input", "output"])


def test_inference_says_that_the_output_cannot_be_written(extractor):
    with pytest.raises(OutputError, match=r"output: 'none/out\.jsonl' cannot be written \(No such"):
        infer_from_arguments(["甲", "--output", "none/out.jsonl"])


def test_inference_without_any_training_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdapterError, match=r"train first"):
        infer_from_arguments(["甲"])


def test_inference_names_an_unknown_flag(extractor, capsys):
    with pytest.raises(SystemExit) as exit_info:
        infer_from_arguments(["--imput", "x"])
    assert exit_info.value.code == 2
    assert "(did you mean) --input" in capsys.readouterr().err
