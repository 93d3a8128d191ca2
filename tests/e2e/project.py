"""A project folder as a user has it, and its scripts run as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "train_pure_python.py",
    "train_with_config.py",
    "example_train.py",
    "inference_triplet.py",
    "evaluate_triplet.py",
    "config/__init__.py",
    "config/train_config_simple.py",
    "data/generate_triplet_data.py",
)


def render_lines(*rows: tuple[str, ...]) -> str:
    """Canonical lines of texts, each with the items of one triplet or none."""
    names = ("subject", "relation", "object")
    records = [
        {"text": text, "triplets": [dict(zip(names, triplet, strict=True))] if triplet else []}
        for text, *triplet in rows
    ]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


TRAIN_LINES = render_lines(
    ("甲山公司位于乙江市。", "甲山公司", "位于", "乙江市"),
    ("王小明毕业于东海大学。", "王小明", "毕业院校", "东海大学"),
    ("今天的天气不错。",),
    ("《长河》的作者是李一凡。", "长河", "作者", "李一凡"),
    ("丙城是丁国的首都。", "丁国", "首都", "丙城"),
    ("赵文出生于南岭县。", "赵文", "出生地", "南岭县"),
    ("星光科技由陈立创立。", "星光科技", "创始人", "陈立"),
    ("大家明天再讨论这件事。",),
)
VALIDATION_LINES = render_lines(
    ("庚水公司位于辛安市。", "庚水公司", "位于", "辛安市"),
    ("他昨天没有来。",),
)


def make_project(folder: Path, model_dir: Path) -> Path:
    """The scripts, small data, and a local clone of a model, named in the configuration file."""
    for name in SCRIPTS:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, target)
    for name in ("THUDM/chatglm-6b", "models/clone"):
        shutil.copytree(model_dir, folder / name)
        make_terse(folder / name)
    config = folder / "config" / "train_config_simple.py"
    source = config.read_text(encoding="utf-8")
    edited = source.replace('MODEL_NAME = "THUDM/chatglm-6b"', 'MODEL_NAME = "models/clone"')
    config.write_text(edited, encoding="utf-8")
    write_data(folder)
    return folder


def make_terse(model_dir: Path) -> None:
    """Makes a random model answer nothing; else it would write on to its limit, for seconds."""
    from safetensors.torch import load_file, save_file

    path = model_dir / "model.safetensors"
    end_id = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    weights = load_file(path)
    embedding = weights["transformer.word_embeddings.weight"]
    weights["transformer.final_layernorm.bias"] = 1000 * embedding[end_id]
    save_file(weights, path, metadata={"format": "pt"})


def write_data(folder: Path) -> None:
    """The default data files, a few lines long."""
    (folder / "data" / "train_triplet.jsonl").write_text(TRAIN_LINES, encoding="utf-8")
    (folder / "data" / "val_triplet.jsonl").write_text(VALIDATION_LINES, encoding="utf-8")


def run_python(
    *arguments: str, cwd: Path, stdin: str = "", timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs Python without a GPU and without the network, as a user would in that folder."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("TRIPLETUNE_DEBUG", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
    )


def check(result: subprocess.CompletedProcess[str]) -> str:
    """Standard output of a run that must have gone well."""
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout
