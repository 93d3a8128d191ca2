"""What a user can get wrong: one message that names place and remedy, exit code 2, nothing lost."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.e2e.project import TRAIN_LINES, run_python
from tripletune.cli.main import guarded
from tripletune.cli.train import train_from_arguments

GOOD = TRAIN_LINES.encode()


@pytest.fixture
def complain(tmp_path, monkeypatch, tiny_model_dir, capfd):
    """Trains with these flags; the one message a user sees."""
    for name in ("train.jsonl", "val.jsonl"):
        (tmp_path / name).write_bytes(GOOD)
    output = tmp_path / "out"
    output.mkdir()
    (output / "adapter_config.json").write_text('{"earlier": true}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    flags = {
        "--config": "fast",
        "--model_name": str(tiny_model_dir),
        "--train_file": "train.jsonl",
        "--validation_file": "val.jsonl",
        "--output_dir": "out",
    }

    def run(**changes: str) -> str:
        given = {**flags, **{f"--{name}": value for name, value in changes.items()}}
        argv = [part for pair in given.items() for part in pair]
        monkeypatch.setattr(sys, "argv", ["train_with_config.py", *argv])
        with pytest.raises(SystemExit) as exit_info:
            guarded(lambda: train_from_arguments(None))
        error = capfd.readouterr().err
        assert exit_info.value.code == 2
        assert "Traceback" not in error
        assert error.count("错误 (error): ") == 1
        earlier = (output / "adapter_config.json").read_text(encoding="utf-8")
        assert json.loads(earlier) == {"earlier": True}
        return error[error.index("错误 (error): ") :]

    return run


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["train.jsonl", "empty"]),
        (b"\n \n", ["train.jsonl"]),
        (TRAIN_LINES.encode("gb18030"), ["train.jsonl:1: ", "UTF-8", "GB18030"]),
        (GOOD + b'{"text": "x", \n', ["train.jsonl:9: "]),
        (GOOD + b'{"triplets": []}\n', ["train.jsonl:9: ", "text"]),
        (GOOD + b'{"text": "x"}\n', ["train.jsonl:9: ", "triplets"]),
        (
            GOOD + b'{"text": "x", "triplets": [{"subject": "x", "relation": "y"}]}\n',
            ["train.jsonl:9: ", "object"],
        ),
        (
            GOOD
            + b'{"text": "x", "triplets": [{"subject": "x", "relation": "y", "object": ""}]}\n',
            ["train.jsonl:9: ", "object", "empty"],
        ),
        (GOOD + b'["x"]\n', ["train.jsonl:9: "]),
        (b"\x00\x01\x02\xff" * 10, ["train.jsonl"]),
    ],
    ids=[
        "empty",
        "blank",
        "not UTF-8",
        "broken JSON",
        "no text",
        "no triplets",
        "no object",
        "empty object",
        "no record",
        "binary",
    ],
)
def test_bad_training_file(complain, tmp_path, content, words):
    (tmp_path / "train.jsonl").write_bytes(content)
    message = complain()
    assert [word for word in words if word not in message] == []


def test_bad_validation_file(complain, tmp_path):
    (tmp_path / "val.jsonl").write_bytes(GOOD + b"{\n")
    assert "val.jsonl:9: " in complain()


def test_missing_file(complain):
    message = complain(train_file="none.jsonl")
    assert "none.jsonl: " in message
    assert "--train_file" in message


def test_missing_default_file(complain):
    message = complain(train_file="data/train_triplet.jsonl")
    assert "cd data && python generate_triplet_data.py" in message


def test_output_folder_that_is_a_file(complain, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    message = complain(output_dir="file")
    assert "output_dir: 'file' is a file; give a folder" in message
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_model_that_is_not_there(complain):
    assert "'./none'" in complain(model_name="./none")


def test_model_folder_without_a_model(complain, tmp_path):
    (tmp_path / "model").mkdir()
    assert "has no config.json" in complain(model_name="model")


def test_model_that_cannot_be_fetched(complain, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = complain(model_name="nobody/no-such-chatglm")
    remedies = ["HF_ENDPOINT=https://hf-mirror.com", "git lfs clone", "--model_name embedded"]
    assert [word for word in ["nobody/no-such-chatglm", *remedies] if word not in message] == []


def test_model_folder_that_was_cut_off(complain, tmp_path, tiny_model_dir):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    message = complain(model_name="model")
    assert message.startswith("错误 (error): model/model.safetensors: is cut off, ")
    assert "download it again" in message


def test_checkpoint_that_is_not_there(complain):
    message = complain(resume_from_checkpoint="out/checkpoint-500", max_steps="1")
    assert "'out/checkpoint-500'" in message


def test_layer_that_is_not_there(complain):
    message = complain(lora_target_modules="q_proj")
    assert "'q_proj'" in message
    assert "available: query_key_value, dense" in message


def test_all_wrong_values_at_once(complain):
    message = complain(batch_size="0", lora_dropout="2")
    assert "batch_size: 0" in message
    assert "lora_dropout: 2.0" in message


def test_misspelt_field_in_the_configuration_file(project, tmp_path):
    code = (
        "from config.train_config_simple import TrainingConfig\n"
        "from tripletune.cli.main import guarded\n"
        "def main():\n    TrainingConfig().BATCHSIZE = 1\n"
        "guarded(main)"
    )
    result = run_python("-c", code, cwd=project)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "错误 (error): TrainingConfig: there is no field 'BATCHSIZE'; did you mean BATCH_SIZE?\n"
    )
