"""Training and extraction on all GPUs of a machine against one of them, by the commands users run.

    python benchmarks/random_model.py chatglm-6b model --vocabulary ice_text.model
    python benchmarks/several_gpus.py --model model --output several_gpus.json

- `ddp`: 100 steps of the default data by one process and by one a GPU, the same examples in each
  step: tokens a second without the first step (which compiles), the two loss curves, and how evenly
  tokens are divided;
- `fsdp`: the same with `--fsdp`, and what each card then holds;
- `resume`: the last checkpoint but one of all processes continued by one, and the other way round;
- `extract`: sentences a second with `--workers` 1 and one a GPU, by how the output grows from a
  quarter of its lines on, so that neither loading counts nor what a process takes longer for the
  first time; and whether the bytes are the same.

NCCL's environment is left as it is found. Without a GPU two gloo processes stand in, so that the
script can be tried with `--model embedded`; rates mean nothing then.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("ddp", "fsdp", "resume", "extract")
_WATCH_SECONDS = 0.1
_ADAPTER_STEPS = 25
"""After so many, where `ddp` was not measured, answers end by themselves."""


@dataclass
class Bench:
    """What the parts share.

    Attributes:
        args: Of the command.
        num_gpus: How many processes stand against one.
        results: What has been measured.
    """

    args: argparse.Namespace
    num_gpus: int
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def step_examples(self) -> int:
        """Examples of an optimizer step, the same for any number of processes."""
        return int(self.args.batch_size * self.num_gpus)

    def train(self, name: str, *, processes: int, steps: int, flags: Sequence[str] = ()) -> Any:
        """The record of a training, with its losses by step under `losses`."""
        output_dir = self.args.work / name
        accumulation = self.step_examples // (self.args.batch_size * processes)
        command = [str(ROOT / "train_with_config.py"), "--config", "large"]
        command += ["--model_name", str(self.args.model), "--output_dir", str(output_dir)]
        command += ["--train_file", str(self.args.work / "train_triplet.jsonl")]
        command += ["--validation_file", str(self.args.work / "val_triplet.jsonl")]
        command += ["--batch_size", str(self.args.batch_size), "--max_steps", str(steps)]
        command += ["--gradient_accumulation_steps", str(accumulation), "--lora_r", "8"]
        command += ["--epochs", "1000", "--lr_scheduler_type", "constant_with_warmup"]
        # Dropout draws other masks in each process, and would hide whether the curves agree.
        command += ["--lora_dropout", "0", "--logging_steps", "1", "--report_to", "none"]
        # As many steps in runs of any length, so that their first steps can be compared.
        command += ["--warmup_steps", "1"]
        command += ["--eval_steps", str(10 * steps), "--save_steps", str(self.args.save_steps)]
        command += ["--load_best_model_at_end", "false", "--keep_checkpoints", "100"]
        command += ["--packing", "true", *flags]
        seconds = self.run(name, command, processes=processes)
        record = json.loads((output_dir / "run.json").read_text("utf-8"))
        history = json.loads((output_dir / "training_history.json").read_text("utf-8"))
        record["losses"] = {r["step"]: r["loss"] for r in history if "loss" in r}
        record["wall_seconds"] = seconds
        return record

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        processes: int = 1,
        watch: Callable[[float], None] | None = None,
    ) -> float:
        """Seconds that a command of the project takes, as one process or under torchrun.

        Meanwhile `watch` is called with the seconds so far, every now and then.
        """
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        log = self.args.work / f"{name}.log"
        environment = {**os.environ, "TRIPLETUNE_NO_PROGRESS": "1"}
        if processes == 1 and not torch.cuda.is_available():
            environment["OMP_NUM_THREADS"] = "1"  # as torchrun gives each of its own
        begun = time.perf_counter()
        with log.open("w", encoding="utf-8") as stream:
            running = subprocess.Popen(
                [*start, *command], cwd=ROOT, stdout=stream, stderr=stream, env=environment
            )
            while watch is not None and running.poll() is None:
                time.sleep(_WATCH_SECONDS)
                watch(time.perf_counter() - begun)
            running.wait()
        if running.returncode:
            sys.exit(f"{name} ended with {running.returncode}:\n{log.read_text('utf-8')[-3000:]}")
        return time.perf_counter() - begun

    def note(self, part: str, figures: dict[str, Any]) -> None:
        """Keeps and prints the figures of a part."""
        self.results[part] = figures
        self.args.output.write_text(json.dumps(self.results, indent=1), encoding="utf-8")
        for name, value in figures.items():
            if not isinstance(value, (dict, list)):
                shown = f"{value:,.4g}" if isinstance(value, float) else value
                print(f"{part:8s} {name:40s} {shown}", flush=True)


def describe(record: Any) -> dict[str, Any]:
    """Rate, memory and balance of a training."""
    result = record["result"]
    steps = result["steps"]
    ranks = result["ranks"]
    tokens = [rank["tokens"] for rank in ranks]
    seconds = result["train_seconds"] - result["startup_seconds"]["第一步"]
    return {
        "tokens_per_second": result["tokens"] * (steps - 1) / steps / seconds,
        "steps": steps,
        "peak_gb": [rank["peak_bytes"] / 1e9 for rank in ranks],
        "tokens_of_ranks": tokens,
        "spread": max(tokens) / min(tokens) - 1,
        "startup_seconds": result["startup_seconds"],
        "wall_seconds": record["wall_seconds"],
    }


def compare_losses(actual: dict[int, float], expected: dict[int, float]) -> dict[str, float]:
    """Relative distances of two curves at the steps that both have."""
    steps = sorted(actual.keys() & expected.keys())
    distances = [abs(actual[step] / expected[step] - 1) for step in steps]
    return {
        "compared_steps": float(len(steps)),
        "largest_distance": max(distances),
        "mean_distance": statistics.fmean(distances),
    }


def measure_ddp(bench: Bench) -> None:
    """One process against one a GPU."""
    steps = bench.args.steps
    one = bench.train("one", processes=1, steps=steps)
    many = bench.train("ddp", processes=bench.num_gpus, steps=steps)
    single, several = describe(one), describe(many)
    bench.note(
        "ddp",
        {
            "one_tokens_per_second": single["tokens_per_second"],
            "tokens_per_second": several["tokens_per_second"],
            "speedup": several["tokens_per_second"] / single["tokens_per_second"],
            "spread_of_tokens": several["spread"],
            "peak_gb": max(several["peak_gb"]),
            **compare_losses(many["losses"], one["losses"]),
            "one": single,
            "many": several,
            "losses": {"one": one["losses"], "many": many["losses"]},
        },
    )


def measure_fsdp(bench: Bench) -> None:
    """Frozen weights divided among all processes."""
    steps = bench.args.fsdp_steps
    record = bench.train("fsdp", processes=bench.num_gpus, steps=steps, flags=["--fsdp"])
    figures = describe(record)
    shown = {"tokens_per_second": figures["tokens_per_second"], "peak_gb": max(figures["peak_gb"])}
    if "ddp" in bench.results:
        # JSON has turned the steps of earlier results into text.
        losses = bench.results["ddp"]["losses"]["one"]
        expected = {int(step): loss for step, loss in losses.items()}
        shown |= {
            "peak_gb_of_ddp": bench.results["ddp"]["peak_gb"],
            **compare_losses(record["losses"], expected),
        }
    bench.note("fsdp", {**shown, "many": figures, "losses": record["losses"]})


def measure_resume(bench: Bench) -> None:
    """Checkpoints change hands, and the losses that follow are compared with those of `ddp`."""
    if "ddp" not in bench.results:
        sys.exit("resume continues the checkpoints of ddp; run that first")
    step = (bench.args.steps - 1) // bench.args.save_steps * bench.args.save_steps
    figures: dict[str, Any] = {"from_step": step}
    for name, processes, source in (("to_one", 1, "ddp"), ("to_many", bench.num_gpus, "one")):
        checkpoint = bench.args.work / source / f"checkpoint-{step}"
        record = bench.train(
            name, processes=processes, steps=bench.args.steps,
            flags=["--resume_from_checkpoint", str(checkpoint)],
        )  # fmt: skip
        losses = bench.results["ddp"]["losses"]["many" if source == "ddp" else "one"]
        after = {int(s): loss for s, loss in losses.items() if int(s) > step}
        figures |= {f"{name}_{k}": v for k, v in compare_losses(record["losses"], after).items()}
    bench.note("resume", figures)


@dataclass
class Growth:
    """How a file grew.

    Attributes:
        path: Of the file.
        moments: Seconds and bytes, whenever there were more.
    """

    path: Path
    moments: list[tuple[float, int]] = field(default_factory=list)

    def note(self, seconds: float) -> None:
        """Looks how large the file is now."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size > (self.moments[-1][1] if self.moments else 0):
            self.moments.append((seconds, size))

    def find_rate(self) -> float:
        """Lines a second once a quarter of them was there, until the last was.

        By bytes a quarter could be a chunk more or less, and with several workers the chunks left
        then not be the same number for each.
        """
        content = self.path.read_bytes()
        lines = [(seconds, content[:size].count(b"\n")) for seconds, size in self.moments]
        ended, last = lines[-1]
        begun, first = next(moment for moment in lines if moment[1] >= last / 4)
        return (last - first) / (ended - begun) if ended > begun else math.nan


def measure_extract(bench: Bench) -> None:
    """A file of sentences with one worker and with one a GPU, by the adapter of one process."""
    adapter = bench.args.work / "one"
    if not (adapter / "adapter_config.json").is_file():
        bench.train("one", processes=1, steps=_ADAPTER_STEPS)
    lines = (bench.args.work / "train_triplet.jsonl").read_text("utf-8").splitlines()
    source = bench.args.work / "sentences.jsonl"
    chosen = [lines[number % len(lines)] for number in range(bench.args.sentences)]
    source.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    rates, outputs, times = {}, {}, {}
    for workers in (1, bench.num_gpus):
        target = bench.args.work / f"extracted-{workers}.jsonl"
        target.unlink(missing_ok=True)
        command = ["-m", "tripletune", "extract", "--adapter", str(adapter)]
        command += ["--input", str(source), "--output", str(target), "--weights", "bf16"]
        command += ["--batch_size", str(bench.args.extract_batch), "--max_new_tokens", "40"]
        command += ["--workers", str(workers)]
        growth = Growth(target)
        bench.run(f"extract-{workers}", command, watch=growth.note)
        rates[workers], times[workers] = growth.find_rate(), growth.moments
        outputs[workers] = target.read_bytes()
    bench.note(
        "extract",
        {
            "one_sentences_per_second": rates[1],
            "sentences_per_second": rates[bench.num_gpus],
            "speedup": rates[bench.num_gpus] / rates[1],
            "same_bytes": outputs[1] == outputs[bench.num_gpus],
            "growth": times,
        },
    )


def make_parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model, or embedded")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--batch_size", type=int, default=128, help="examples a GPU and step")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fsdp_steps", type=int, default=20)
    parser.add_argument("--save_steps", type=int, default=90)
    parser.add_argument("--sentences", type=int, default=32768)
    parser.add_argument("--extract_batch", type=int, default=128)
    parser.add_argument("--work", type=Path, default=Path("output/several-gpus"))
    parser.add_argument("--output", type=Path, default=Path("several_gpus.json"))
    return parser


def main() -> None:
    """Measures the parts in order; parts measured by an earlier call stay in the output."""
    args = make_parser().parse_args()
    args.work, args.output = args.work.resolve(), args.output.resolve()
    if args.model != "embedded":
        args.model = Path(args.model).resolve()
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 2
    if num_gpus < 2:
        sys.exit(f"{num_gpus} GPU: this compares several with one")
    bench = Bench(args, num_gpus)
    if args.parts[0] == PARTS[0]:
        shutil.rmtree(args.work, ignore_errors=True)
    elif args.output.is_file():
        bench.results = json.loads(args.output.read_text("utf-8"))
    args.work.mkdir(parents=True, exist_ok=True)
    on_gpu = torch.cuda.is_available()
    bench.results |= {
        "gpus": [torch.cuda.get_device_name(n) for n in range(num_gpus)] if on_gpu else ["CPU"],
        "torch": torch.__version__,
        "model": str(args.model),
        "step_examples": bench.step_examples,
    }
    make_data = [str(ROOT / "data" / "generate_triplet_data.py"), "--output_dir", str(args.work)]
    bench.run("data", make_data)
    measures = {
        "ddp": measure_ddp,
        "fsdp": measure_fsdp,
        "resume": measure_resume,
        "extract": measure_extract,
    }
    for part in args.parts:
        measures[part](bench)


if __name__ == "__main__":
    main()
