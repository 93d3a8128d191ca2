"""How near the memory plan's prediction is to what runs really need, on cards of three sizes.

    PYTHONPATH=src python benchmarks/plan_accuracy.py --output plan_accuracy.json

Each combination of data, preset and model is a real short training of a full-size network (random
weights, NF4) by the trainer itself, with one evaluation that extracts, while the process may have
no more of the GPU than a card of that size (10**9 bytes a GB). The prediction is the plan's before
its trial has corrected it; the measured peak is of what tensors hold (`max_memory_allocated`),
training, the evaluation's loss and extraction apart. Results are written after every combination.
`--tiny` tries the script itself on two small layers, on a CPU too.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tripletune.config import PRESET_VALUES, TrainingSettings, build_settings
from tripletune.data.encode import TokenizedExample
from tripletune.extraction.generate import GenerationOptions, generate_greedy
from tripletune.models.gpu_memory import find_available_bytes
from tripletune.training import probe
from tripletune.training.acceleration import accelerate_layers, plain_attention
from tripletune.training.adapters import add_lora
from tripletune.training.fitting import GpuFit
from tripletune.training.network_size import describe_network
from tripletune.training.plan import PlannedRun, RunPlan
from tripletune.training.plan_table import render_plan
from tripletune.training.recompute import checkpoint_blocks
from tripletune.training.rows import DataLengths
from tripletune.training.run import TrainingRun
from tripletune.training.speed import DeviceSpeed, find_typical_device, measure_device
from tripletune.training.trainer import ExampleDataset

GB = 10**9
LENGTHS = {
    "short": ((45, 120), (12, 70)),
    "mixed": ((60, 512), (20, 256)),
    "full": ((512, 512), (256, 256)),
}


@dataclass(frozen=True)
class Combination:
    """One training.

    Attributes:
        family: Of networks.
        preset: Its settings; lengths are 512 + 256 for all of them.
        gigabytes: Of the card.
        data: Key of `LENGTHS`.
        compiled: Whether blocks are compiled.
        waves: How many times over the sentences are more than are extracted from at once.
    """

    family: str
    preset: str
    gigabytes: float
    data: str
    compiled: bool = False
    waves: int = 1

    @property
    def name(self) -> str:
        """What it is called in the table."""
        way = "compiled" if self.compiled else "eager"
        return f"{self.family} {self.preset} {self.gigabytes:g} GB {self.data} {way}"


COMBINATIONS = (
    Combination("chatglm-6b", "small", 6, "short", waves=2),
    Combination("chatglm-6b", "small", 6, "full"),
    Combination("chatglm-6b", "medium", 12, "short"),
    Combination("chatglm-6b", "medium", 12, "full"),
    Combination("chatglm-6b", "large", 24, "mixed"),
    Combination("chatglm-6b", "large", 24, "full", compiled=True),
    Combination("chatglm-6b", "small", 6, "mixed", compiled=True),
    Combination("chatglm2-6b", "small", 6, "full", waves=2),
    Combination("chatglm2-6b", "medium", 12, "mixed"),
    Combination("chatglm2-6b", "large", 24, "full"),
)


class MeasuredRun(TrainingRun):
    """A run over token ids, which notes the peak of each of its parts."""

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        super().__init__(settings)
        self.device = device
        self.peaks = {"training": 0, "evaluation": 0, "generation": 0}
        self.prompts: list[list[int]] = []

    @contextlib.contextmanager
    def noting(self, part: str, *, around: str) -> Iterator[None]:
        """The peak inside belongs to `part`, what was before to `around`."""
        self.note(around)
        try:
            yield
        finally:
            self.note(part)

    def note(self, part: str) -> None:
        """Puts the peak since the last time down to a part."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.peaks[part] = max(self.peaks[part], peak)

    def score(self) -> dict[str, float]:
        """Extracts from every prompt to the longest answer; scores nothing."""
        with self.noting("generation", around="evaluation"), plain_attention(self.model):
            options = GenerationOptions(
                end_token_id=-2,
                pad_token_id=3,
                max_new_tokens=self.settings.max_target_length,
                batch_size=self._fit.plan.generation_batch,
            )
            generate_greedy(self.model, self.prompts, options)
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}

    def prepare(self, combination: Combination, fit: GpuFit, data: list[TokenizedExample]) -> None:
        """Puts model, data and plan where the run looks for them."""
        self.tokenizer = SimpleNamespace(pad_token_id=3, save_pretrained=lambda *a, **k: None)
        self._fit = fit
        self._train_set = self._validation_set = ExampleDataset(data)
        self.prompts = [e.input_ids[: e.num_prompt_tokens] for e in data[: fit.run.sentences]]

    def run(self) -> dict[str, Any]:
        """Trains; gives steps and tokens a second."""
        # A callback of ours would ask the tokenizer for more than it is.
        self.trainer = self._build_trainer()
        self.trainer.processing_class = None
        evaluate = self.trainer.evaluate

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.note("training")
            return evaluate(*args, **kwargs)

        self.trainer.evaluate = noted
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.trainer.train()
        self.note("training")
        seconds, tokens = self.trainer.train_seconds, self.trainer.state.num_input_tokens_seen
        return {"tokens_per_second": tokens / max(seconds, 1e-9), "train_seconds": seconds}


def make_data(
    name: str, config: Any, count: int, longest: tuple[int, int]
) -> list[TokenizedExample]:
    """Random token ids of the stated lengths, as the network wants a prompt to end."""
    chance = random.Random(name)
    vocabulary = getattr(config, "padded_vocab_size", config.vocab_size)
    gmask = getattr(config, "gmask_token_id", vocabulary - 2)
    start = config.bos_token_id if hasattr(config, "gmask_token_id") else vocabulary - 1
    (low, high), (least, most) = LENGTHS[name]
    examples = []
    for _ in range(count):
        prompt = min(chance.randint(low, high), longest[0])
        answer = min(chance.randint(least, most), longest[1])
        ids = [chance.randrange(10, vocabulary - 600) for _ in range(prompt - 2 + answer)]
        ids[prompt - 2 : prompt - 2] = [gmask, start]
        examples.append(TokenizedExample(ids, prompt))
    return examples


def build_base(family: str, *, tiny: bool) -> Any:
    """The network without adapter, on the GPU; or a small one, in fp32, wherever this runs."""
    if not tiny:
        from train_throughput import build_network

        return build_network(family, 0)
    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.configuration_chatglm import ChatGLMConfig

    config = ChatGLMConfig(
        vocab_size=1024, hidden_size=64, num_layers=2, num_attention_heads=2,
        inner_hidden_size=256, mask_token_id=1000, gmask_token_id=1001, bos_token_id=1004,
        eos_token_id=1005,
    )  # fmt: skip
    torch.manual_seed(0)
    model = ChatGLMForConditionalGeneration(config)
    return model.cuda().bfloat16() if torch.cuda.is_available() else model


def describe(family: str, settings: TrainingSettings, *, tiny: bool) -> Any:
    """The network's sizes from its configuration alone."""
    if tiny:
        model: Any = build_base(family, tiny=True)
    else:
        from train_throughput import NETWORKS, OFFICIAL

        others = ("model_type", "torch_dtype")
        fields = {k: v for k, v in OFFICIAL[family].items() if k not in others}
        network: Any = NETWORKS[family]
        with torch.device("meta"):
            model = network(network.config_class(**fields))
    return describe_network(
        model,
        rank=settings.lora_r,
        target_modules=settings.lora_target_modules,
        quantize=not tiny,
    )


def strip(adapted: Any) -> Any:
    """The base network as it was before LoRA, fast layers, compiling and checkpointing."""
    base = adapted.unload()
    for module in base.modules():
        for name in ("forward", "_is_fast"):
            module.__dict__.pop(name, None)
    checkpoint_blocks(base, 0)
    base.set_attn_implementation("sdpa")
    torch._dynamo.reset()
    return base


def build_run_settings(combination: Combination, folder: str, steps: int) -> TrainingSettings:
    """The preset with the longest texts, a few steps, and one evaluation at the end."""
    return build_settings(
        {
            **PRESET_VALUES[combination.preset],
            "max_source_length": 512,
            "max_target_length": 256,
            "max_steps": steps,
            "eval_steps": steps,
            "save_steps": 1000 * steps,
            "logging_steps": 1,
            "load_best_model_at_end": False,
            "output_dir": folder,
            "report_to": (),
        }
    )


def plan(
    combination: Combination,
    settings: TrainingSettings,
    data: list[TokenizedExample],
    speed: DeviceSpeed,
    *,
    available: int,
    tiny: bool,
) -> GpuFit:
    """The plan of a combination, for as many sentences as it is to extract from."""
    lengths = DataLengths.of(data)
    run = PlannedRun(
        settings=settings,
        size=describe(combination.family, settings, tiny=tiny),
        training=lengths,
        validation=lengths,
        longest_prompt=max(example.num_prompt_tokens for example in data),
        sentences=1,
        compiled=combination.compiled,
        keeps_weights=None,
    )
    once = GpuFit(replace(run, sentences=10**6), speed, available=available)
    sentences = min(len(data), combination.waves * once.plan.generation_batch)
    return GpuFit(replace(run, sentences=sentences), speed, available=available)


def measure(
    combination: Combination, base: Any, speed: DeviceSpeed, *, steps: int, tiny: bool
) -> tuple[Any, dict[str, Any]]:
    """Trains a combination; the base again, and what was predicted and measured."""
    device = base.device
    available = int(combination.gigabytes * GB)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, available / total), device)
        available = find_available_bytes(device)
    adapted = None
    trials: list[int | None] = []
    plain_trial = probe.try_micro_batch

    def noted_trial(model: Any, batch: dict[str, Any]) -> int | None:
        trials.append(plain_trial(model, batch))
        return trials[-1]

    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = build_run_settings(combination, folder, steps)
            longest = (64, 16) if tiny else (512, 256)
            data = make_data(combination.data, base.config, 160, longest)
            if tiny:
                settings = settings.changed(max_source_length=64, max_target_length=16)
            fit = plan(combination, settings, data, speed, available=available, tiny=tiny)
            predicted = fit.plan
            print(render_plan(predicted), flush=True)
            adapted = add_lora(
                base,
                rank=settings.lora_r,
                alpha=settings.lora_alpha,
                dropout=settings.lora_dropout,
                target_modules=settings.lora_target_modules,
                model_name=combination.family,
            )
            accelerate_layers(adapted, keep_weights=predicted.keeps_weights)
            run = MeasuredRun(settings, device)
            run.model = adapted
            run.prepare(combination, fit, data)
            probe.try_micro_batch = noted_trial
            figures = run.run()
            result = compare(predicted, run, trials) | figures
            del run.trainer, run
    finally:
        probe.try_micro_batch = plain_trial
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    return strip(adapted), result


def compare(predicted: RunPlan, run: MeasuredRun, trials: list[int | None]) -> dict[str, Any]:
    """Bytes predicted and measured, part by part, and by how much the prediction is off."""
    expected = {
        "training": predicted.training.total,
        "evaluation": predicted.evaluation.total,
        "generation": predicted.generation.total,
    }
    measured = max(run.peaks.values())
    reserved = torch.cuda.max_memory_reserved(run.device) if run.device.type == "cuda" else 0
    return {
        "predicted": predicted.total,
        "measured": measured,
        "relative_error": predicted.total / measured - 1 if measured else None,
        "predicted_parts": expected,
        "measured_parts": run.peaks,
        "training_moment": asdict(predicted.training),
        "generation_moment": asdict(predicted.generation),
        "reserved": reserved,
        "trials": trials,
        "planned_again": run._fit.plan.summary() != predicted.summary() and len(trials) > 1,
        "plan": predicted.summary(),
        "predicted_tokens_per_second": predicted.tokens / max(predicted.training_seconds, 1e-9),
    }


def render_result(name: str, result: dict[str, Any]) -> str:
    """A row of the table, in GiB."""
    if "error" in result:
        return f"{name:44s} {result['error']}"
    parts = "  ".join(
        f"{part} {result['predicted_parts'][part] / 2**30:5.2f}/{peak / 2**30:5.2f}"
        for part, peak in result["measured_parts"].items()
    )
    error = result["relative_error"]
    shown = "" if error is None else f"{error:+7.1%}"
    return (
        f"{name:44s} {result['predicted'] / 2**30:6.2f} {result['measured'] / 2**30:6.2f} {shown}  "
        f"{parts}  {result['tokens_per_second']:,.0f} tok/s"
        f" (plan {result['predicted_tokens_per_second']:,.0f})"
    )


def main() -> None:
    """Measures every combination and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("plan_accuracy.json"))
    parser.add_argument("--only", nargs="*", type=int, help="numbers of combinations, from 0")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=330, help="start none after these")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s - %(message)s")
    started = time.perf_counter()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    speed = measure_device(device) if on_gpu else find_typical_device(24)
    results: dict[str, Any] = {
        "gpu": speed.name, "torch": torch.__version__, "flops": speed.flops,
        "bandwidth": speed.bandwidth, "combinations": {},
    }  # fmt: skip
    base, family = None, ""
    for number, combination in enumerate(COMBINATIONS):
        if args.only is not None and number not in args.only:
            continue
        begun = time.perf_counter()
        if begun - started > args.seconds:
            result = {"error": "not started: no time left"}
        else:
            try:
                if base is None or family != combination.family:
                    base, family = None, combination.family
                    free_memory()
                    base = build_base(family, tiny=args.tiny)
                base, result = measure(combination, base, speed, steps=args.steps, tiny=args.tiny)
            except Exception as error:
                traceback.print_exc()
                result = {"error": f"{type(error).__name__}: {error}"[:500]}
                base = None
        result["seconds"] = time.perf_counter() - begun
        results["combinations"][combination.name] = result
        args.output.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(render_result(combination.name, result), flush=True)
        free_memory()
    print(f"\n{'(GiB)':44s} planned measured  error  planned/measured of each part")
    for name, result in results["combinations"].items():
        print(render_result(name, result))


def free_memory() -> None:
    """Lets go of what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
