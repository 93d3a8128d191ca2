"""Loss curves of the same training, run packed and padded, in bf16 and in fp8, over 200 steps.

    python benchmarks/loss_curves.py --model gemma-3-270m-q4_k_m.gguf \
        --train ../shared/datasets/duie2/train.jsonl --output loss_curves.json

Every run sees the same examples in the same order with the same LoRA weights at its start, but
`packed-again`, whose LoRA weights and dropout come from another seed: its distance from `packed` is
what chance does. Writes the curves, their distances and a picture.

With `--runs` just some of them, so that several can run at once; `--curves` then takes the files
that those wrote, and compares.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import encode_examples
from tripletune.data.readers import load_examples
from tripletune.models.loading import find_position_scheme, load_model, load_tokenizer
from tripletune.training.acceleration import accelerate_layers, speed_up_network
from tripletune.training.adapters import add_lora
from tripletune.training.labelled_loss import use_labelled_loss

RUNS: dict[str, dict[str, Any]] = {
    "padded": {"packed": False},
    "packed": {},
    "packed-again": {"seed": 1},
    "packed-fp8": {"fp8": True},
}
WINDOW = 20


def train(
    model_name: str, batches: list[Any], tokenizer: Any, *, learning_rate: float,
    packed: bool = True, fp8: bool = False, seed: int = 0,
) -> list[float]:  # fmt: skip
    """The loss of every step."""
    torch._dynamo.reset()
    model = load_model(model_name, quantize=True, device=torch.device("cuda"))
    torch.manual_seed(seed)
    model = add_lora(
        model, rank=16, alpha=32, dropout=0.05, target_modules="all-linear", model_name=model_name
    )
    scheme: Any = find_position_scheme(model.get_base_model())
    accelerate_layers(model, in_fp8=fp8)
    if packed:
        speed_up_network(model)
        collate: Any = PackedCollator(tokenizer.pad_token_id, scheme, pad_to_multiple_of=128)
    else:
        use_labelled_loss(model.get_base_model())
        collate = PaddedCollator(tokenizer.pad_token_id, scheme)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=learning_rate, fused=True
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, total_iters=20)
    model.train()
    losses = []
    for batch in batches:
        inputs = {name: tensor.cuda() for name, tensor in collate(batch).items()}
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.detach())
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return [float(loss) for loss in losses]


def smooth(losses: list[float]) -> list[float]:
    """Means over windows of `WINDOW` steps."""
    return [
        statistics.fmean(losses[first : first + WINDOW]) for first in range(0, len(losses), WINDOW)
    ]


def compare(losses: list[float], reference: list[float]) -> dict[str, float]:
    """Relative distances between two curves: of the smoothed ones, and of their means."""
    pairs = list(zip(smooth(losses), smooth(reference), strict=True))
    return {
        "largest_of_windows": max(abs(a - b) / b for a, b in pairs),
        "mean_of_windows": statistics.fmean(abs(a - b) / b for a, b in pairs),
        "of_means": statistics.fmean(losses) / statistics.fmean(reference) - 1,
        "of_the_last_50": statistics.fmean(losses[-50:]) / statistics.fmean(reference[-50:]) - 1,
    }


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """The smoothed curves as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, losses in curves.items():
        smoothed = smooth(losses)
        steps = [WINDOW * (number + 0.5) for number in range(len(smoothed))]
        axes.plot(steps, smoothed, label=name, marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss (mean of {WINDOW} steps)")
    axes.set_yscale("log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def measure(
    args: argparse.Namespace, curves: dict[str, list[float]], results: dict[str, Any]
) -> None:
    """Adds the curve and the seconds of each run that is asked for."""
    tokenizer = load_tokenizer(args.model)
    examples = load_examples(args.train)
    random.Random(0).shuffle(examples)
    encoded, _ = encode_examples(
        examples, tokenizer, max_source_tokens=512, max_target_tokens=256, long_texts="drop"
    )
    size = args.batch_size
    places = [(size * step) % (len(encoded) - size) for step in range(args.steps)]
    batches = [encoded[place : place + size] for place in places]
    results["gpu"] = torch.cuda.get_device_name()
    for name in args.runs:
        started = time.perf_counter()
        curves[name] = train(
            args.model, batches, tokenizer, learning_rate=args.learning_rate, **RUNS[name]
        )
        results[name] = {"seconds": time.perf_counter() - started}
        print(name, results[name], [round(v, 4) for v in smooth(curves[name])], flush=True)
        args.output.write_text(json.dumps(results | {"curves": curves}, indent=1), "utf-8")


def main() -> None:
    """Runs them all and writes the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=4e-4)
    parser.add_argument("--runs", nargs="*", choices=RUNS, default=list(RUNS))
    parser.add_argument("--curves", nargs="*", type=Path, default=[], help="of other runs")
    parser.add_argument("--output", type=Path, default=Path("loss_curves.json"))
    args = parser.parse_args()
    results: dict[str, Any] = {"steps": args.steps}
    curves: dict[str, list[float]] = {}
    for path in args.curves:
        written = json.loads(path.read_text("utf-8"))
        curves |= written.pop("curves")
        results |= written
    if args.runs:
        measure(args, curves, results)
    for name in [name for name in curves if name != "packed" and "packed" in curves]:
        results[name] |= compare(curves[name], curves["packed"])
        print(name, results[name], flush=True)
    args.output.write_text(json.dumps(results | {"curves": curves}, indent=1), "utf-8")
    draw(curves, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
