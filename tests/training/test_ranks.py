from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.small_runs import Killed, build_small_settings, read_history, train
from tripletune.training import checkpoints
from tripletune.training.ranks import map_over_ranks

SCRIPT = Path(__file__).with_name("two_ranks.py")


def test_one_process_does_everything():
    assert map_over_ranks(lambda items: [item + 1 for item in items], [1, 2, 3]) == [2, 3, 4]


def train_on_two(folder: Path, model: Path, output: Path, *, stop_at: int = 0) -> int:
    """The exit code of a training by two processes, whose settings name no accumulation for two."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(SCRIPT)]
    command += [str(folder), str(model), str(output), str(stop_at)]
    # A fresh start learns from the same examples a step as one process; a resumed one sees to it.
    accumulation = 2 if list(output.glob("checkpoint-*")) else 1
    command += ['resume_from_checkpoint="auto"', f"gradient_accumulation_steps={accumulation}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    if done.returncode and not stop_at:
        pytest.fail(done.stdout[-3000:] + done.stderr[-3000:])
    return done.returncode


@pytest.mark.slow
def test_two_processes_one_and_two_again_have_the_losses_of_one(
    tmp_path, tiny_model_dir, monkeypatch
):
    monkeypatch.setattr("tripletune.training.callbacks.plot_history", lambda *a: None)
    monkeypatch.setattr(checkpoints, "_flush", lambda path: None)
    settings = build_small_settings(
        tmp_path, tiny_model_dir, lora_dropout=0.0, resume_from_checkpoint="auto"
    )
    train(settings.changed(output_dir=tmp_path / "whole"))

    assert train_on_two(tmp_path, tiny_model_dir, settings.output_dir, stop_at=5) != 0
    assert (settings.output_dir / "checkpoint-5").is_dir()

    def kill(trainer: object, step: int) -> None:
        if step == 10:
            raise Killed

    with pytest.raises(Killed):
        train(settings, kill)
    assert train_on_two(tmp_path, tiny_model_dir, settings.output_dir) == 0

    actual, expected = read_history(settings.output_dir), read_history(tmp_path / "whole")
    for one, other in zip(actual, expected, strict=True):
        # The Trainer counts epochs in micro-batches, of which two processes have fewer.
        del one["epoch"], other["epoch"]
        assert one == pytest.approx(other, rel=1e-4)
    ranks = [json.loads((settings.output_dir / f"rank{r}.json").read_text()) for r in (0, 1)]
    scores = [[(r["eval_loss"], r["eval_f1"]) for r in h if "eval_loss" in r] for h in ranks]
    assert scores[0] == scores[1]
    from safetensors.torch import load_file

    ends = [
        load_file(d / "adapter_model.safetensors")
        for d in (settings.output_dir, tmp_path / "whole")
    ]
    for name, tensor in ends[1].items():
        torch.testing.assert_close(ends[0][name], tensor, rtol=1e-3, atol=1e-5)
