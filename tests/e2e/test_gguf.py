"""A GGUF file as the base model, through the same two commands as any other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.project import check, run_python
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.mark.slow
def test_gguf_file_is_trained_and_extracted_with(project: Path) -> None:
    pytest.importorskip("gguf")
    path = write_tiny_gguf(project / "tiny.gguf")
    flags = ["--config", "fast", "--model_name", str(path), "--max_steps", "2"]
    flags += ["--lora_target_modules", "all-linear", "--output_dir", "output/gguf"]
    flags += ["--logging_steps", "1", "--batch_size", "2"]
    out = check(run_python("train_with_config.py", *flags, cwd=project))
    # Rank 8 on seven matrices a layer.
    rows = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 64), (64, 64), (64, 64)]
    trainable = sum(2 * 8 * (inner + outer) for inner, outer in rows)
    assert f"trainable params: {trainable:,} || " in out
    losses = [float(loss) for loss in re.findall(r"\{'loss': ([0-9.]+)", out)]
    assert len(losses) == 2
    assert "INFO - 加速: head on labelled tokens" in out
    adapter = json.loads((project / "output/gguf/adapter_config.json").read_text("utf-8"))
    assert adapter["base_model_name_or_path"] == str(path)
    assert adapter["r"] == 8

    text = "甲山公司位于乙江市。"
    out = check(run_python("inference_triplet.py", "--adapter", "output/gguf", text, cwd=project))
    assert f"文本: {text}" in out
