"""Real weights on real data: Gemma 3 270M, QLoRA on DuIE 2.0, strict F1 on its dev sentences.

    python benchmarks/duie_gemma.py --model gemma-3-270m-q4_k_m.gguf \
        --train ../shared/datasets/duie2/train.jsonl --dev ../shared/datasets/duie2/dev.jsonl

Trains with `TrainingRun` (NF4 base, LoRA on all linear layers), extracts from every dev sentence
constrained and free, scores both with their intervals, and writes reports beside the adapter.
`--runs` names variants that differ from the default in one thing each. Whether blocks are compiled
is left to the plan, but in `compiled` and `uncompiled`.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch

from tripletune.cli.train import set_up_logging
from tripletune.config import build_settings
from tripletune.evaluation import evaluate, write_report
from tripletune.extraction.extractor import Extractor
from tripletune.training.acceleration import plain_attention
from tripletune.training.run import TrainingRun

DEFAULTS: dict[str, Any] = {
    "num_epochs": 3, "learning_rate": 8e-4, "lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.05,
    "lora_target_modules": "all-linear", "batch_size": 16, "gradient_accumulation_steps": 1,
    "warmup_steps": 50, "eval_steps": 100_000, "save_steps": 100_000,
    "load_best_model_at_end": False, "logging_steps": 50, "report_to": (),
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "padded": {"packing": False},
    "constant": {"lr_scheduler_type": "constant_with_warmup"},
    "attention-only": {"lora_target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")},
    "rank-8": {"lora_r": 8, "lora_alpha": 16},
    "schema-in-prompt": {"relations_per_prompt": 8},
    "shuffled-triplets": {},
    "batch-32": {"batch_size": 32, "learning_rate": 1.2e-3, "warmup_steps": 25},
    "five-epochs": {"num_epochs": 5},
    "batch-32-five-epochs": {
        "batch_size": 32, "learning_rate": 1.2e-3, "warmup_steps": 25, "num_epochs": 5,
    },
    "batch-32-eight-epochs": {
        "batch_size": 32, "learning_rate": 1.2e-3, "warmup_steps": 25, "num_epochs": 8,
    },
    "compiled": {},
    "uncompiled": {},
}  # fmt: skip


class BenchmarkRun(TrainingRun):
    """A run that is scored once, at its end."""

    def score(self) -> dict[str, float]:
        """Nothing while training."""
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}


@contextmanager
def arranged(name: str) -> Iterator[None]:
    """What settings cannot say: whether to compile, and another order of the triplets."""

    def shuffle(text: str, triplets: Any) -> Any:
        return tuple(random.Random(text).sample(list(dict.fromkeys(triplets)), len(set(triplets))))

    with ExitStack() as changes:
        if name in ("compiled", "uncompiled"):
            seconds = -math.inf if name == "compiled" else math.inf
            changes.enter_context(patch("tripletune.training.plan.COMPILE_SECONDS", seconds))
        if name == "shuffled-triplets":
            for area in ("encode", "cache"):
                target = f"tripletune.data.{area}.arrange_triplets"
                changes.enter_context(patch(target, shuffle))
        yield


def score(run: TrainingRun, *, constrained: bool, report: Path) -> dict[str, Any]:
    """Extracts from the validation sentences, writes a report, and gives the figures."""
    examples = run.validation_examples
    begun = time.perf_counter()
    with plain_attention(run.model):
        extractor = Extractor(
            run.model.eval(), run.tokenizer, relations=run.schema, constrained=constrained,
            batch_size=256, relations_per_prompt=run.settings.relations_per_prompt,
        )  # fmt: skip
        extractions = extractor.extract([example.text for example in examples])
    seconds = time.perf_counter() - begun
    evaluation = evaluate(examples, extractions)
    write_report(evaluation, report)
    report.with_suffix(".jsonl").write_text(
        "".join(extraction.to_json() + "\n" for extraction in extractions), encoding="utf-8"
    )
    record = evaluation.to_dict()
    return {
        "strict": record["strict"],
        "duie": record["duie"],
        "seconds": seconds,
        "errors": record["errors"].get("counts", {}),
        "ungrounded": sum(
            t.subject not in e.text or t.object not in e.text
            for e in extractions
            for t in e.triplets
        ),
    }


def train_and_score(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One run, from loading the model to its scores."""
    output_dir = args.output_dir / name
    given = {key: getattr(args, key) for key in DEFAULTS if getattr(args, key, None) is not None}
    settings = build_settings({
        **DEFAULTS, **given, **RUNS[name], "model_name": args.model, "max_steps": args.max_steps,
        "train_file": args.train, "validation_file": args.dev, "output_dir": output_dir,
    })  # fmt: skip
    started = time.perf_counter()
    with arranged(name):
        run = BenchmarkRun(settings)
        run.train()
    result: dict[str, Any] = {
        "train_seconds": time.perf_counter() - started,
        "steps_seconds": run.trainer.train_seconds,
        "steps": run.trainer.state.global_step,
        "startup_seconds": run._clock.parts,
        # The first run of a process: its imports are counted, too.
        "seconds_since_process_start": time.time() - psutil.Process().create_time(),
    }
    print(
        f"{name}: trained in {result['train_seconds']:.0f} s, the process is "
        f"{result['seconds_since_process_start']:.0f} s old",
        flush=True,
    )
    for way in ("constrained", "free"):
        report = output_dir / f"report-{way}.html"
        result[way] = score(run, constrained=way == "constrained", report=report)
        strict = result[way]["strict"]
        figures = {k: strict[k] for k in ("precision", "recall", "f1", "num_predicted")}
        print(
            f"{name} {way}: {figures}, ungrounded {result[way]['ungrounded']}, "
            f"{result[way]['seconds']:.1f} s",
            flush=True,
        )
    result["all_seconds"] = time.perf_counter() - started
    return result


def main() -> None:
    """Runs the variants and writes their figures after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("output/duie-gemma"))
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["default"])
    parser.add_argument("--num_epochs", type=float)
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--lora_r", type=int)
    parser.add_argument("--lora_alpha", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--max_steps", type=int, default=-1)
    args = parser.parse_args()
    set_up_logging()
    results: dict[str, Any] = {}
    if torch.cuda.is_available():
        results["gpu"] = torch.cuda.get_device_name()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.runs:
        results[name] = train_and_score(name, args)
        (args.output_dir / "duie_gemma.json").write_text(json.dumps(results, indent=1), "utf-8")
        gc.collect()


if __name__ == "__main__":
    main()
