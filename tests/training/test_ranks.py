from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from tests.training.small_runs import (
    Killed,
    build_small_settings,
    leave_out_slow_parts,
    read_history,
    train,
)
from tripletune.models.loading import load_model
from tripletune.training.ranks import gather_over_ranks, map_over_ranks
from tripletune.training.run_record import read_run_record

SCRIPT = Path(__file__).with_name("two_ranks.py")


def test_one_process_does_everything():
    assert map_over_ranks(lambda items: [item + 1 for item in items], [1, 2, 3]) == [2, 3, 4]
    assert gather_over_ranks("here") == ["here"]


def test_process_parts_from_the_others_before_it_ends(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text(
        "import atexit\n"
        "import torch.distributed as dist\n"
        "from tripletune.training.ranks import join_ranks\n"
        "atexit.register(lambda: print('joined at the end:', dist.is_initialized()))\n"
        "join_ranks()\n"
        "print('joined:', dist.is_initialized())\n",
        encoding="utf-8",
    )
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port())}
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, **told, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.splitlines() == ["joined: True", "joined at the end: False"], done.stderr


def train_on_two(
    folder: Path,
    model: Path,
    output: Path,
    *fields: str,
    stop_at: int = 0,
    num_machines: int = 1,
) -> int:
    """The exit code of a training by two processes, whose settings name no accumulation for two.

    With two machines, as torchrun sees them, each has one of the processes.
    """
    port = find_free_port() if num_machines > 1 else 0
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={num_machines}"]
    command += [f"--nproc_per_node={2 // num_machines}", "--rdzv_backend=c10d"]
    command += [f"--rdzv_endpoint=localhost:{port}", str(SCRIPT)]
    command += [str(folder), str(model), str(output), str(stop_at)]
    # A fresh start learns from the same examples a step as one process; a resumed one sees to it.
    accumulation = 2 if list(output.glob("checkpoint-*")) else 1
    command += ['resume_from_checkpoint="auto"', f"gradient_accumulation_steps={accumulation}"]
    command += fields
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    machines = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(num_machines)
    ]
    outputs = [machine.communicate(timeout=200)[0] for machine in machines]
    code = max(abs(machine.returncode) for machine in machines)
    if code and not stop_at:
        pytest.fail("\n".join(text[-3000:] for text in outputs))
    return code


def find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port


def check_same_training(output: Path, whole: Path) -> None:
    actual, expected = read_history(output), read_history(whole)
    for one, other in zip(actual, expected, strict=True):
        # The Trainer counts epochs in micro-batches, of which two processes have fewer.
        del one["epoch"], other["epoch"]
        assert one == pytest.approx(other, rel=1e-4)
    results = [read_run_record(folder / "run.json")["result"] for folder in (output, whole)]
    assert results[0]["tokens"] == results[1]["tokens"]
    ranks = [json.loads((output / f"rank{r}.json").read_text()) for r in (0, 1)]
    scores = [[(r["eval_loss"], r["eval_f1"]) for r in h if "eval_loss" in r] for h in ranks]
    assert scores[0] == scores[1]
    ends = [load_file(d / "adapter_model.safetensors") for d in (output, whole)]
    for name, tensor in ends[1].items():
        torch.testing.assert_close(ends[0][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_two_machines_and_one_have_the_losses_of_one(
    tmp_path, tiny_model_dir, monkeypatch
):
    """Two that share the weights begin, two machines and one process continue, two again end."""
    leave_out_slow_parts(monkeypatch)
    settings = build_small_settings(
        tmp_path,
        tiny_model_dir,
        lora_dropout=0.0,
        resume_from_checkpoint="auto",
        load_in_4bit=True,
    )
    output, whole = settings.output_dir, tmp_path / "whole"
    train(settings.changed(output_dir=whole))

    quantised, shared = "load_in_4bit=true", "fsdp=true"
    folders = (tmp_path, tiny_model_dir, output)
    assert train_on_two(*folders, quantised, shared, stop_at=5) != 0
    assert (output / "checkpoint-5").is_dir()
    assert train_on_two(*folders, quantised, stop_at=9, num_machines=2) != 0
    assert (output / "checkpoint-9").is_dir()

    def kill(trainer: object, step: int) -> None:
        if step == 13:
            raise Killed

    with pytest.raises(Killed):
        train(settings, kill)
    assert train_on_two(*folders, quantised, shared) == 0

    check_same_training(output, whole)
    tuned = PeftModel.from_pretrained(load_model(str(tiny_model_dir), quantize=True), output)
    assert len([n for n, _ in tuned.named_parameters() if "lora_" in n]) == 4
