"""Real weights on real data: Gemma 3 270M, QLoRA on DuIE 2.0, strict F1 on its dev sentences.

    python benchmarks/duie_gemma.py --model gemma-3-270m-q4_k_m.gguf \
        --train ../shared/datasets/duie2/train.jsonl --dev ../shared/datasets/duie2/dev.jsonl

Trains with `TrainingRun` (NF4 base, LoRA on all linear layers, prompts read in both directions) on
all but the last `--held_out` sentences, extracts from every dev sentence and scores with intervals,
reports beside the adapter:

- `constrained`: held to the text and the schema; `free`: not;

and, where sentences are held out,

- `threshold`: constrained, without triplets below the confidence that is best for those sentences;
- `votes`: what a share of eight drawn outputs holds, the share that is best for them.

`--runs` names variants, which differ from the default, or from `batch-16`, in one thing each.
Whether blocks are compiled is left to the plan unless `--compiled` says it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch

from tripletune.cli.train import set_up_logging
from tripletune.config import build_settings
from tripletune.data.augment import augment_file
from tripletune.data.readers import load_examples
from tripletune.data.writers import write_examples
from tripletune.evaluation import Settings, evaluate, write_report
from tripletune.evaluation.calibration import compute_calibration
from tripletune.extraction.calibration import judge_confidences
from tripletune.extraction.extractor import Extractor
from tripletune.schema import Example, Extraction
from tripletune.training.acceleration import plain_attention
from tripletune.training.run import TrainingRun

DEFAULTS: dict[str, Any] = {
    "num_epochs": 3, "learning_rate": 8e-4, "bidirectional_prompt": True,
    "lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.05, "lora_target_modules": "all-linear",
    "batch_size": 32, "gradient_accumulation_steps": 1, "eval_batch_size": 64,
    "warmup_steps": 25, "eval_steps": 100_000, "save_steps": 100_000,
    "load_best_model_at_end": False, "logging_steps": 50, "report_to": (),
}  # fmt: skip
SMALL_BATCHES: dict[str, Any] = {"batch_size": 16, "learning_rate": 4e-4, "warmup_steps": 50}
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "batch-32-6e-4": {"learning_rate": 6e-4},
    "batch-32-4e-4": {"learning_rate": 4e-4},
    "batch-16": SMALL_BATCHES,
}
# What each change gives was measured in batches of 16, against `batch-16`.
RUNS |= {
    name: {**SMALL_BATCHES, **change}
    for name, change in {
        "one-direction": {"bidirectional_prompt": False},
        "one-direction-8e-4": {"bidirectional_prompt": False, "learning_rate": 8e-4},
        "8e-4": {"learning_rate": 8e-4},
        "2e-4": {"learning_rate": 2e-4},
        "padded": {"packing": False},
        "constant": {"lr_scheduler_type": "constant_with_warmup"},
        "attention-only": {"lora_target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")},
        "rank-8": {"lora_r": 8, "lora_alpha": 16},
        "schema-in-prompt": {"relations_per_prompt": 8},
        "shuffled-triplets": {},
        "two-epochs": {"num_epochs": 2},
        "five-epochs": {"num_epochs": 5},
        "dropout": {"lora_dropout": 0.2},
        "augmented": {"num_epochs": 1.5},
    }.items()
}


WAYS: dict[str, dict[str, Any]] = {
    "constrained": {"constrained": True},
    "free": {"constrained": False},
    "votes": {"constrained": True, "votes": 8, "vote_share": 0.0},
}


class BenchmarkRun(TrainingRun):
    """A run that is scored once, at its end."""

    def score(self) -> dict[str, float]:
        """Nothing while training."""
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}


@contextmanager
def arranged(name: str, compiled: bool | None) -> Iterator[None]:
    """What settings cannot say: whether to compile, and another order of the triplets."""

    def shuffle(text: str, triplets: Any) -> Any:
        return tuple(random.Random(text).sample(list(dict.fromkeys(triplets)), len(set(triplets))))

    with ExitStack() as changes:
        if compiled is not None:
            seconds = -math.inf if compiled else math.inf
            changes.enter_context(patch("tripletune.training.plan.COMPILE_SECONDS", seconds))
        if name == "shuffled-triplets":
            for area in ("encode", "cache"):
                target = f"tripletune.data.{area}.arrange_triplets"
                changes.enter_context(patch(target, shuffle))
        yield


def write_data(name: str, args: argparse.Namespace) -> tuple[Path, list[Example]]:
    """The training file of a variant, and the examples that are held out from it."""
    examples = load_examples(args.train)
    num_trained = len(examples) - args.held_out
    folder = args.output_dir / "data"
    path = folder / f"{name}.jsonl"
    if name.startswith("augmented"):
        write_examples(examples[:num_trained], folder / "plain.jsonl")
        augment_file(folder / "plain.jsonl", path)
    else:
        write_examples(examples[:num_trained], path)
    return path, examples[num_trained:]


def extract(run: TrainingRun, examples: Sequence[Example], **options: Any) -> list[Extraction]:
    """The extraction of each example by the model as it is."""
    with plain_attention(run.model):
        extractor = Extractor(
            run.model.eval(), run.tokenizer, relations=run.schema, batch_size=256,
            relations_per_prompt=run.settings.relations_per_prompt,
            bidirectional_prompt=run.settings.bidirectional_prompt, **options,
        )  # fmt: skip
        return extractor.extract([example.text for example in examples])


def choose_threshold(examples: Sequence[Example], extractions: Sequence[Extraction]) -> float:
    """The confidence with the best F1."""
    confidences, is_correct, num_gold = judge_confidences(examples, extractions)
    found = compute_calibration(confidences, is_correct, num_gold=num_gold)
    return 0.0 if found is None else found.best.threshold


def keep_from(threshold: float, extractions: Sequence[Extraction]) -> list[Extraction]:
    """The extractions without triplets below a confidence."""
    return [
        replace(e, triplets=tuple(t for t in e.triplets if (t.confidence or 0.0) >= threshold))
        for e in extractions
    ]


def measure(
    way: str, run: TrainingRun, extractions: Sequence[Extraction], folder: Path
) -> dict[str, Any]:
    """Scores extractions, writes a report and the predictions, and gives the figures."""
    settings = Settings(schema=run.schema.names)
    evaluation = evaluate(run.validation_examples, extractions, settings=settings)
    report = folder / f"report-{way}.html"
    write_report(evaluation, report)
    report.with_suffix(".jsonl").write_text(
        "".join(extraction.to_json() + "\n" for extraction in extractions), encoding="utf-8"
    )
    record = evaluation.to_dict()
    strict = record["strict"]
    ungrounded = sum(
        t.subject not in e.text or t.object not in e.text for e in extractions for t in e.triplets
    )
    shown = ("precision", "recall", "f1")
    figures = {k: "undefined" if strict[k] is None else round(strict[k], 4) for k in shown}
    print(f"{folder.name} {way}: {figures} of {strict['num_predicted']}, not in text {ungrounded}",
          flush=True)  # fmt: skip
    return {"strict": strict, "duie": record["duie"], "ungrounded": ungrounded}


def score_all_ways(run: TrainingRun, held_out: Sequence[Example], folder: Path) -> dict[str, Any]:
    """The figures of each way of extracting; see the module."""
    examples = run.validation_examples
    results: dict[str, Any] = {}
    for way, options in WAYS.items():
        if way == "votes" and not held_out:
            continue
        begun = time.perf_counter()
        found = extract(run, examples, **options)
        seconds = time.perf_counter() - begun
        if way != "votes":
            results[way] = measure(way, run, found, folder) | {"seconds": seconds}
        if way != "free" and held_out:
            name = "threshold" if way == "constrained" else way
            tuned = extract(run, held_out, **options)
            threshold = choose_threshold(held_out, tuned)
            if way == "constrained":  # what settings are to be chosen by
                results[way]["held_out"] = evaluate(held_out, tuned).to_dict()["strict"]
            results[name] = measure(name, run, keep_from(threshold, found), folder)
            results[name] |= {"threshold": threshold, "seconds": seconds}
    return results


def train_and_score(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One run, from loading the model to its scores."""
    output_dir = args.output_dir / name
    train_file, held_out = write_data(name, args)
    given = {key: getattr(args, key) for key in DEFAULTS if getattr(args, key, None) is not None}
    settings = build_settings({
        **DEFAULTS, **given, **RUNS[name], "model_name": args.model, "max_steps": args.max_steps,
        "train_file": train_file, "validation_file": args.dev, "output_dir": output_dir,
    })  # fmt: skip
    started = time.perf_counter()
    with arranged(name, args.compiled):
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
    result |= score_all_ways(run, held_out, output_dir)
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
    parser.add_argument("--compiled", choices=("true", "false"))
    parser.add_argument("--held_out", type=int, default=250, help="training sentences to tune on")
    args = parser.parse_args()
    args.compiled = None if args.compiled is None else args.compiled == "true"
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
