"""Kills a CPU training at random points, and while it saves, and checks that nothing is lost.

    python scripts/kill_and_resume.py --kills 20 --save_kills 20 --json kill_and_resume.json

A small ChatGLM with random weights is trained once without disturbance. Then the same training is
started again and again and killed with SIGKILL: `--kills` times at a random moment, `--save_kills`
times at a random point inside the saving of a checkpoint. After each kill it is resumed with
`--resume_from_checkpoint auto` to the end. Every resumed run must end in the adapter of the
undisturbed one, byte for byte, and in the same losses and scores at the same steps. Exit code 0
when all do, else 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SENTENCES = 48
F1 = {4: 0.2, 8: 0.6, 12: 0.3, 16: 0.5, 20: 0.55, 24: 0.4}
"""Made-up scores by step: random weights have none, and the best step must be followed too."""


@dataclass(frozen=True)
class Outcome:
    """One killed and resumed run.

    Attributes:
        kind: `moment` or `saving`.
        point: Seconds after the first step, or which file operation of the saving.
        killed_after_step: The last step that was done when it was killed.
        resumed_after_step: The checkpoint it went on from; 0 without one.
        same_adapter: Whether the final adapter has the undisturbed run's bytes.
        same_history: Whether all losses and scores are those of the undisturbed run.
    """

    kind: str
    point: float
    killed_after_step: int
    resumed_after_step: int
    same_adapter: bool
    same_history: bool


def main() -> int:
    """Runs the kills and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--save_kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die_at_operation", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        train(arguments.child, arguments.die_at_operation)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_all(Path(folder), arguments)
    good = sum(outcome.same_adapter and outcome.same_history for outcome in outcomes)
    print(f"{good} of {len(outcomes)} resumed runs ended in the same adapter bytes and history")
    if arguments.json is not None:
        text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0 if good == len(outcomes) else 1


def run_all(folder: Path, arguments: argparse.Namespace) -> list[Outcome]:
    """The outcome of every kill."""
    make_inputs(folder)
    started = time.monotonic()
    run_child(folder, "whole")
    seconds = training_seconds(folder / "whole.steps")
    operations = int((folder / "whole.operations").read_text())
    print(
        f"undisturbed: {last_step(folder, 'whole')} steps in {seconds:.1f} s, "
        f"{time.monotonic() - started:.1f} s with start-up; {operations} file operations to save",
        flush=True,
    )
    chance = random.Random(arguments.seed)
    plan: list[tuple[str, float]] = [
        ("moment", chance.uniform(0, seconds)) for _ in range(arguments.kills)
    ]
    plan += [("saving", chance.randint(1, operations)) for _ in range(arguments.save_kills)]
    outcomes = []
    for number, (kind, point) in enumerate(plan, 1):
        outcome = kill_and_resume(folder, f"run{number}", kind, point)
        outcomes.append(outcome)
        good = "same" if outcome.same_adapter and outcome.same_history else "DIFFERENT"
        print(
            f"{number:3} {kind:7} {point:7.2f}  killed after step {outcome.killed_after_step:2}, "
            f"resumed after {outcome.resumed_after_step:2}: {good}",
            flush=True,
        )
    return outcomes


def kill_and_resume(folder: Path, name: str, kind: str, point: float) -> Outcome:
    """Starts a run, kills it at the point, resumes it and compares."""
    if kind == "saving":
        process = start_child(folder, name, die_at_operation=int(point))
        process.wait()
    else:
        process = start_child(folder, name)
        steps = folder / f"{name}.steps"
        while not steps.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(point)
        process.kill()
        process.wait()
    if process.returncode not in (-signal.SIGKILL, 0):
        raise SystemExit(f"the run failed by itself: {process.returncode}")
    killed = last_step(folder, name)
    run_child(folder, name)
    whole = folder / "whole" / "adapter_model.safetensors"
    actual = folder / name / "adapter_model.safetensors"
    return Outcome(
        kind=kind,
        point=round(point, 3),
        killed_after_step=killed,
        resumed_after_step=int((folder / f"{name}.resumed").read_text()),
        same_adapter=digest(actual) == digest(whole),
        same_history=read_history(folder / name) == read_history(folder / "whole"),
    )


def start_child(folder: Path, name: str, *, die_at_operation: int = 0) -> subprocess.Popen[bytes]:
    """A process that trains into `folder/name`."""
    command = [sys.executable, __file__, "--child", str(folder / name)]
    command += ["--die_at_operation", str(die_at_operation)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def run_child(folder: Path, name: str) -> None:
    """Trains to the end; shows the log and leaves when that fails."""
    if start_child(folder, name).wait() != 0:
        raise SystemExit((folder / f"{name}.log").read_text(errors="replace")[-4000:])


def last_step(folder: Path, name: str) -> int:
    """The last step that the run says it has done."""
    path = folder / f"{name}.steps"
    lines = path.read_text().split() if path.exists() else []
    return int(lines[-1].split(":")[0]) if lines else 0


def training_seconds(path: Path) -> float:
    """From the first step's end to the last's."""
    times = [float(line.split(":")[1]) for line in path.read_text().split()]
    return times[-1] - times[0]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_history(output_dir: Path) -> list[dict[str, Any]]:
    """Every logged record, without what depends on the clock."""
    records = json.loads((output_dir / "training_history.json").read_text(encoding="utf-8"))
    clock = ("runtime", "per_second", "train_loss", "flos")
    return [{k: v for k, v in r.items() if not any(c in k for c in clock)} for r in records]


def make_inputs(folder: Path) -> None:
    """A small model with random weights, and sentences to train on."""
    import torch

    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.configuration_chatglm import ChatGLMConfig
    from tripletune.models.loading import load_tokenizer

    tokenizer = load_tokenizer("embedded")
    config = ChatGLMConfig(
        vocab_size=-(-tokenizer.vocab_size // 16) * 16,
        hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        inner_hidden_size=128,
        max_sequence_length=512,
        mask_token_id=tokenizer.mask_token_id,
        gmask_token_id=tokenizer.gmask_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    ChatGLMForConditionalGeneration(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for number in range(SENTENCES):
            subject, person = f"甲{number}公司", f"乙{number * 7 % 13}"
            text = f"{subject}由{person}创立。" * (1 + number % 3)
            triplet = {"subject": subject, "relation": "创始人", "object": person}
            record = {"text": text, "triplets": [triplet]}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def train(output_dir: Path, die_at_operation: int) -> None:
    """One start of the training, resuming what is there; notes each step beside the folder.

    Args:
        output_dir: Its inputs lie beside it.
        die_at_operation: Kill this process at the n-th file operation of saving checkpoints; 0
            never.
    """
    from transformers.trainer_callback import TrainerCallback

    from tripletune.config import build_settings
    from tripletune.training.run import TrainingRun

    count_operations(output_dir, die_at_operation)
    notes = output_dir.with_name(f"{output_dir.name}.steps")
    resumed = output_dir.with_name(f"{output_dir.name}.resumed")

    class Note(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            resumed.write_text(str(state.global_step))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with notes.open("a") as file:
                file.write(f"{state.global_step}:{time.time()}\n")

    class Run(TrainingRun):
        def score(self) -> dict[str, float]:
            return {"f1": F1.get(self.trainer.state.global_step, 0.0)}

        def _build_trainer(self, stop: Any = None) -> Any:
            trainer = super()._build_trainer(stop)
            trainer.add_callback(Note())
            return trainer

    settings = build_settings(
        {
            "model_name": str(output_dir.parent / "model"),
            "train_file": output_dir.parent / "data.jsonl",
            "validation_file": output_dir.parent / "data.jsonl",
            "output_dir": output_dir,
            "num_epochs": 2,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "eval_batch_size": 16,
            "lora_r": 4,
            "learning_rate": 1e-2,
            "logging_steps": 3,
            "save_steps": 4,
            "eval_steps": 4,
            "resume_from_checkpoint": "auto",
        }
    )
    Run(settings).train()


def count_operations(output_dir: Path, die_at: int) -> None:
    """Counts what saving does to the disk (write, flush, rename, delete); dies at one of them."""
    import torch

    from tripletune.training import checkpoints

    count = 0
    total = output_dir.with_name(f"{output_dir.name}.operations")

    def counted(original: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            # Only what is done to checkpoints. `rmtree` names files relative to their folder.
            if "dir_fd" in kwargs or any("checkpoint-" in str(path) for path in args[:2]):
                count += 1
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                total.write_text(str(count))
            return original(*args, **kwargs)

        return operation

    torch.save = counted(torch.save)
    checkpoints._flush = counted(checkpoints._flush)
    checkpoints.compute_sha256 = counted(checkpoints.compute_sha256)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    os.unlink = counted(os.unlink)
    os.rmdir = counted(os.rmdir)


if __name__ == "__main__":
    sys.exit(main())
