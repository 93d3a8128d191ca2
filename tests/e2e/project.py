"""A project folder as a user has it, and its scripts run as a user runs them."""

from __future__ import annotations

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
TRAIN_LINES = """\
{"text": "甲山公司位于乙江市。", "triplets": [{"subject": "甲山公司", "relation": "位于", "object": "乙江市"}]}
{"text": "王小明毕业于东海大学。", "triplets": [{"subject": "王小明", "relation": "毕业院校", "object": "东海大学"}]}
{"text": "今天的天气不错。", "triplets": []}
{"text": "《长河》的作者是李一凡。", "triplets": [{"subject": "长河", "relation": "作者", "object": "李一凡"}]}
{"text": "丙城是丁国的首都。", "triplets": [{"subject": "丁国", "relation": "首都", "object": "丙城"}]}
{"text": "赵文出生于南岭县。", "triplets": [{"subject": "赵文", "relation": "出生地", "object": "南岭县"}]}
{"text": "星光科技由陈立创立。", "triplets": [{"subject": "星光科技", "relation": "创始人", "object": "陈立"}]}
{"text": "大家明天再讨论这件事。", "triplets": []}
"""
VALIDATION_LINES = """\
{"text": "庚水公司位于辛安市。", "triplets": [{"subject": "庚水公司", "relation": "位于", "object": "辛安市"}]}
{"text": "他昨天没有来。", "triplets": []}
"""


def make_project(folder: Path, model_dir: Path) -> Path:
    """The scripts, small data, and a local clone of a model, named in the configuration file."""
    for name in SCRIPTS:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, target)
    shutil.copytree(model_dir, folder / "THUDM" / "chatglm-6b")
    shutil.copytree(model_dir, folder / "models" / "clone")
    config = folder / "config" / "train_config_simple.py"
    source = config.read_text(encoding="utf-8")
    edited = source.replace('MODEL_NAME = "THUDM/chatglm-6b"', 'MODEL_NAME = "models/clone"')
    config.write_text(edited, encoding="utf-8")
    write_data(folder)
    return folder


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
