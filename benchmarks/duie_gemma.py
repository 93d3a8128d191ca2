"""Real weights on real data: Gemma 3 270M, QLoRA on DuIE 2.0, strict F1 on its dev sentences.

    python benchmarks/duie_gemma.py --model gemma-3-270m-q4_k_m.gguf \
        --train ../shared/datasets/duie2/train.jsonl --dev ../shared/datasets/duie2/dev.jsonl

Trains with `TrainingRun` (NF4 base, LoRA on all linear layers), extracts from every dev sentence
free and constrained, scores both with their intervals, and writes reports beside the adapter.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from tripletune.cli.train import set_up_logging
from tripletune.config import build_settings
from tripletune.data.readers import load_examples
from tripletune.data.relation_schema import learn_schema
from tripletune.evaluation import evaluate, write_report
from tripletune.extraction.extractor import Extractor
from tripletune.training.acceleration import plain_attention
from tripletune.training.run import TrainingRun


class BenchmarkRun(TrainingRun):
    """A run that is scored once, at its end."""

    def score(self) -> dict[str, float]:
        """Nothing while training."""
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def describe(evaluation: Any, seconds: float) -> dict[str, Any]:
    """The figures of one way of extracting."""
    record = evaluation.to_dict()
    return {
        "strict": record["strict"],
        "duie": record["duie"],
        "seconds": seconds,
        "errors": record["errors"].get("counts", {}),
        "exact_match": record["exact_match"],
    }


def main() -> None:
    """Trains, extracts, scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("output/duie-gemma"))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning_rate", type=float, default=8e-4)
    parser.add_argument("--lora_r", type=int, default=32)
    parser.add_argument("--lora_alpha", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--lora_dropout", type=float, default=0.05)
    parser.add_argument("--max_steps", type=int, default=-1)
    args = parser.parse_args()
    set_up_logging()
    settings = build_settings({
        "model_name": args.model, "train_file": args.train, "validation_file": args.dev,
        "output_dir": args.output_dir, "num_epochs": args.epochs, "max_steps": args.max_steps,
        "learning_rate": args.learning_rate, "lora_r": args.lora_r, "lora_alpha": args.lora_alpha,
        "lora_dropout": args.lora_dropout, "lora_target_modules": "all-linear",
        "batch_size": args.batch_size, "gradient_accumulation_steps": 1, "warmup_steps": 50,
        "eval_steps": 100_000, "save_steps": 100_000, "load_best_model_at_end": False,
        "logging_steps": 50,
    })  # fmt: skip
    started = time.perf_counter()
    run = BenchmarkRun(settings)
    run.train()
    results: dict[str, Any] = {"train_seconds": time.perf_counter() - started}
    examples = load_examples(args.dev)
    schema = learn_schema(load_examples(args.train))
    if torch.cuda.is_available():
        results["gpu"] = torch.cuda.get_device_name()
    for name, constrained in (("constrained", True), ("free", False)):
        begun = time.perf_counter()
        extractor = Extractor(
            run.model.eval(), run.tokenizer, relations=schema, constrained=constrained,
            batch_size=128,
        )  # fmt: skip
        # What training compiled for its packed rows would be compiled again for every step here.
        with plain_attention(run.model):
            extractions = extractor.extract([example.text for example in examples])
        evaluation = evaluate(examples, extractions)
        results[name] = describe(evaluation, time.perf_counter() - begun)
        ungrounded = sum(t.subject not in e.text or t.object not in e.text
                         for e in extractions for t in e.triplets)  # fmt: skip
        results[name]["ungrounded"] = ungrounded
        write_report(evaluation, args.output_dir / f"report-{name}.html")
        (args.output_dir / f"predictions-{name}.jsonl").write_text(
            "".join(e.to_json() + "\n" for e in extractions), encoding="utf-8"
        )
        strict = results[name]["strict"]
        print(
            name,
            {k: strict[k] for k in ("precision", "recall", "f1", "num_predicted")},
            f"{results[name]['seconds']:.1f} s",
            "ungrounded",
            ungrounded,
            flush=True,
        )
    (args.output_dir / "duie_gemma.json").write_text(json.dumps(results, indent=1), "utf-8")
    print(f"train {results['train_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
