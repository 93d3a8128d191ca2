from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from rich.progress import Progress
from typer.testing import CliRunner

from tests.extraction.builders import build_sentencepiece, build_small_chatglm
from tripletune.cli.extract import (
    CALIBRATE_HELP,
    EXTRACT_HELP,
    AdapterFactory,
    _Bar,
    _warn_of_contention,
    calibrate,
    extract,
)
from tripletune.data.relation_schema import Relation, RelationSchema, save_schema
from tripletune.errors import ConfigError, ModelError

app = typer.Typer()
app.command("extract", help=EXTRACT_HELP)(extract)
app.command("calibrate", help=CALIBRATE_HELP)(calibrate)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model and an adapter on it, both random and small."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("models")
    tokenizer = build_sentencepiece(folder)
    model = build_small_chatglm(tokenizer)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    model.config._name_or_path = str(folder / "base")
    tuned = get_peft_model(model, LoraConfig(target_modules=["query_key_value"]))
    tuned.peft_config["default"].base_model_name_or_path = str(folder / "base")
    tuned.save_pretrained(folder / "adapter")
    save_schema(RelationSchema((Relation("位于"),)), folder / "adapter" / "schema.json")
    return folder / "base", folder / "adapter"


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_extract_writes_a_grounded_line_for_each_text(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("甲公司位于乙市。\n\n苹果公司\n", encoding="utf-8")
    flags = ["--adapter", folders[1], "--max_new_tokens", 40]
    result = run("extract", "--input", source, "--output", target, *flags)
    assert result.exit_code == 0
    assert f"3 条记录写入 {target}" in result.stderr
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == ["甲公司位于乙市。", "", "苹果公司"]
    for line in lines:
        for triplet in line["triplets"]:
            start, end = triplet["subject_span"]
            assert line["text"][start:end] == triplet["subject"]
            assert triplet["relation"] == "位于"


def test_extract_by_votes_has_their_share_as_confidence(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("甲公司位于乙市。\n苹果公司位于丙地。\n", encoding="utf-8")
    flags = ["--input", source, "--output", target, "--adapter", folders[1]]
    flags += ["--max_new_tokens", 40, "--votes", 4, "--vote_share", 0.25]
    assert run("extract", *flags).exit_code == 0
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    shares = {triplet["confidence"] for line in lines for triplet in line["triplets"]}
    assert shares
    assert shares <= {0.25, 0.5, 0.75, 1.0}


def test_extract_takes_relations_from_a_schema_file(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("甲公司位于乙市。\n" * 3, encoding="utf-8")
    save_schema(RelationSchema((Relation("创始人"),)), tmp_path / "other.json")
    flags = ["--adapter", folders[1], "--schema", tmp_path / "other.json"]
    run("extract", "--input", source, "--output", target, *flags)
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    relations = {triplet["relation"] for line in lines for triplet in line["triplets"]}
    assert relations <= {"创始人"}


def test_extract_without_relations_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has no schema\.json.*--schema.*--free"):
        run("extract", "--input", "in.txt", "--output", "out.jsonl", "--adapter", tmp_path)


@pytest.mark.slow
def test_mistake_that_a_worker_meets_is_the_error_of_one_process(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("甲公司位于乙市。\n" * 3, encoding="utf-8")
    flags = ["--input", source, "--output", tmp_path / "out.jsonl", "--adapter", folders[1]]
    with pytest.raises(ModelError, match="none' is no folder here"):
        run("extract", *flags, "--base_model", tmp_path / "none", "--workers", 2)


def test_calibrate_saves_the_calibration_beside_the_adapter(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source = tmp_path / "val.jsonl"
    gold = {"subject": "甲公司", "relation": "位于", "object": "乙市"}
    record = {"text": "甲公司位于乙市。", "triplets": [gold]}
    texts = [{**record, "text": f"{number}甲公司位于乙市。"} for number in range(8)]
    source.write_text(
        "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
    )
    result = run("calibrate", "--adapter", folders[1], "--validation_file", source)
    saved = json.loads((folders[1] / "calibration.json").read_text(encoding="utf-8"))
    assert saved["method"] == "temperature"
    assert f"{saved['error_before']:.4f} -> {saved['error_after']:.4f}" in result.stdout
    (folders[1] / "calibration.json").unlink()


def test_bar_moves_as_records_are_done_and_is_right_when_they_are_written() -> None:
    """Chunks of 4, 4 and 2, of which a second is begun before the first is written."""
    progress = Progress(disable=True)
    bar = _Bar(progress, 10)
    shown = []
    for num_done, num_written in ((3, 0), (4, 4), (1, 4), (2, 2)):
        for _ in range(num_done):
            bar.note_done()
        shown.append(progress.tasks[0].completed)
        if num_written:
            bar.note_written(num_written, 5)
            shown.append(progress.tasks[0].completed)
    assert shown == [3, 7, 7, 8, 8, 10, 10]
    assert progress.tasks[0].fields["triplets"] == 15


def test_bar_counts_what_another_process_has_done_when_it_is_written() -> None:
    progress = Progress(disable=True)
    bar = _Bar(progress, 10)
    shown = []
    for _ in range(4):
        bar.note_done()
    for num_written in (4, 4, 2):
        bar.note_written(num_written, 1)
        shown.append(progress.tasks[0].completed)
    assert shown == [4, 8, 10]


def test_workers_on_the_same_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: dict[str, float] = {}
    devices = []
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "set_device": lambda device: None,
        "set_per_process_memory_fraction": lambda share, device: shares.update({device: share}),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(
        "tripletune.extraction.extractor.Extractor.from_pretrained",
        lambda *args, device, **kwargs: devices.append(device),
    )
    factory = AdapterFactory("adapter", None, None, 3, {})
    for worker in range(3):
        factory(worker)
    assert devices == ["cuda:0", "cuda:1", "cuda:0"]
    assert shares == {"cuda:0": 1 / 2}


@pytest.mark.parametrize(
    ("workers", "num_threads", "remedy"),
    [(2, 4, "OMP_NUM_THREADS=2"), (8, 1, "OMP_NUM_THREADS=1"), (2, 2, None)],
)
def test_workers_with_more_threads_than_processors_are_told_the_remedy(
    workers: int,
    num_threads: int,
    remedy: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tripletune.models.processors.count_processors", lambda: 4)
    _warn_of_contention(workers, num_threads)
    shown = capsys.readouterr().err
    assert (remedy in shown and "争用 4 个处理器" in shown) if remedy else not shown


@pytest.mark.slow
def test_extract_under_torchrun_writes_the_bytes_of_one_process(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source = tmp_path / "in.txt"
    # 40 texts: three chunks of 16, which two processes divide.
    source.write_text("".join(f"甲{n}公司位于乙{n}市。\n" for n in range(40)), encoding="utf-8")
    flags = ["--input", source, "--adapter", folders[1], "--max_new_tokens", 40, "--batch_size", 2]
    run("extract", *flags, "--output", tmp_path / "one.jsonl")
    script = tmp_path / "run.py"
    script.write_text("from tripletune.cli.main import run\nrun()\n", encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(script), "extract"]
    command += [*map(str, flags), "--output", str(tmp_path / "two.jsonl")]
    # torchrun would give each process one thread, and sums of another order round differently.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    # One process speaks for all.
    assert done.stderr.count("40 条记录写入") == 1
    assert "FutureWarning" not in done.stderr, "of a library, which a user can do nothing about"
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert (tmp_path / "one.jsonl").read_text(encoding="utf-8").count("位于") > 40
