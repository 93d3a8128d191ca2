"""Sentences a second of extraction, against the stock `generate` of transformers, in one run.

    python benchmarks/extract_throughput.py --batch_sizes 512 --repeats 3

A network of ChatGLM-6B's shape with random weights reads prompts of 80 tokens and writes exactly 40
tokens for each. Measured are

- stock: `model.generate`, one batch after another;
- free: this package's generation without constraint (slots, CUDA graphs);
- constrained: the same with a guide for every sentence, each doing its real work for a sentence of
  the length of DuIE's and an answer of 40 tokens. Which token comes next is scripted, since random
  weights would not write triplets.

The table has the median of the repeats; `--json`
writes everything after each measurement, with the versions. A measurement that fails prints its
traceback, and the others go on.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import time
import traceback
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tripletune.data.linearize import render_target
from tripletune.data.relation_schema import Relation
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.generate import GenerationOptions, generate_greedy
from tripletune.extraction.guide import TripletGuide
from tripletune.extraction.vocabulary import Vocabulary, build_vocabulary
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.tokenization_chatglm import ChatGLMTokenizer
from tripletune.schema import Triplet

NUM_PROMPT_TOKENS = 80
NUM_NEW_TOKENS = 40
NEVER = -1
TINY = {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "inner_hidden_size": 128}


class ScriptedGuide:
    """A guide that does all its work and then follows a script whatever was chosen."""

    is_finished = False

    def __init__(self, guide: TripletGuide, script: list[int]) -> None:
        self.guide = guide
        self.script = iter(script)

    def prepare(self) -> None:
        """What the guide does ahead."""
        self.guide.prepare()

    def allowed(self) -> Any:
        """What the guide allows."""
        return self.guide.allowed()

    def advance(self, token_id: int) -> None:
        """Goes on by the script."""
        following = next(self.script, None)
        if following is not None:
            self.guide.advance(following)


def build_network(shape: str, weights: str, device: torch.device) -> Any:
    """A network with random weights, made on the device."""
    config = ChatGLMConfig(**(TINY if shape == "tiny" else {}))
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device=device)
    model.tie_weights()
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layernorm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
    if weights == "nf4":
        from tripletune.models.quantization import quantize_linear_layers

        quantize_linear_layers(model, dtype=dtype)
        free_memory()
    return model.eval()


def make_prompts(count: int, config: Any) -> list[list[int]]:
    """Random prompts of 80 tokens."""
    chance = random.Random(1)
    body = NUM_PROMPT_TOKENS - 2
    return [
        [chance.randrange(20000, 60000) for _ in range(body)]
        + [config.gmask_token_id, config.bos_token_id]
        for _ in range(count)
    ]


def make_guides(count: int, tokenizer: Any, vocabulary: Vocabulary) -> list[ScriptedGuide]:
    """Guides for sentences of about 60 characters, each with a script of at least 40 tokens."""
    chance = random.Random(2)
    pieces = [text for text in vocabulary.symbols if len(text) == 1 and "一" <= text <= "鿿"]
    alphabet = pieces[:2000]
    relations = ["".join(chance.choices(alphabet, k=chance.randint(2, 4))) for _ in range(48)]
    constraint = Constraint(vocabulary, [Relation(name) for name in dict.fromkeys(relations)])
    guides = []
    for _ in range(count):
        text = "".join(chance.choices(alphabet, k=60))
        triplets, script = [], []
        while len(script) < NUM_NEW_TOKENS:
            first, second = chance.randrange(0, 50), chance.randrange(0, 50)
            triplets.append(
                Triplet(
                    text[first : first + chance.randint(2, 6)],
                    chance.choice(relations),
                    text[second : second + chance.randint(2, 6)],
                )
            )
            script = tokenizer.encode_plain(render_target(dict.fromkeys(triplets)))
        guide = constraint.build_guide(text, max_triplets=99, max_tokens=999)
        guides.append(ScriptedGuide(guide, script))
    return guides


def run_stock(model: Any, prompts: list[list[int]], batch_size: int) -> int:
    """Number of sentences that stock `generate` wrote."""
    for first in range(0, len(prompts), batch_size):
        ids = torch.tensor(prompts[first : first + batch_size], device=model.device)
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NUM_NEW_TOKENS,
            min_new_tokens=NUM_NEW_TOKENS,
            pad_token_id=3,
        )
        assert output.shape[1] == NUM_PROMPT_TOKENS + NUM_NEW_TOKENS
    return len(prompts)


def run_ours(
    model: Any,
    prompts: list[list[int]],
    batch_size: int,
    *,
    graphs: bool,
    guides: Any = None,
    num_new: int = NUM_NEW_TOKENS,
) -> int:
    """Number of sentences that this package wrote."""
    options = GenerationOptions(
        end_token_id=NEVER,
        pad_token_id=3,
        max_new_tokens=num_new,
        batch_size=batch_size,
        method="slots",
        use_cuda_graphs=graphs,
    )
    results = generate_greedy(model, prompts, options, guides=guides)
    assert all(len(result.token_ids) == num_new for result in results)
    return len(results)


def free_memory() -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Record:
    """The figures, written to a file after each measurement; one that fails does not end the rest.

    Args:
        arguments: Of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        on_gpu = torch.cuda.is_available()
        self.path: Path | None = arguments.json
        self.repeats: int = arguments.repeats
        self.deadline = time.monotonic() + arguments.time_limit
        self.rows: list[dict[str, Any]] = []
        self.head = {
            "device": torch.cuda.get_device_name() if on_gpu else platform.processor(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "shape": arguments.shape,
            "prompt_tokens": NUM_PROMPT_TOKENS,
            "new_tokens": NUM_NEW_TOKENS,
        }

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row and writes the file."""
        self.rows.append(row)
        if self.path is not None:
            record = {**self.head, "rows": self.rows}
            self.path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n")

    def measure(self, name: str, prepare: Any) -> float | None:
        """Sentences a second of an action, or None where it failed or there is no time left.

        Args:
            name: Of the row.
            prepare: Given whether it is for warm-up, makes the action, which returns the number of
                its sentences.
        """
        if time.monotonic() > self.deadline:
            self.add({"name": name, "error": "left out: the time limit has passed"})
            print(f"{name:<52} 超过时限，未测", flush=True)
            return None
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                row = self._time(name, prepare)
            texts = {str(warning.message).splitlines()[0] for warning in caught}
            row["warnings"] = sorted(texts)
        except Exception as error:  # whatever it is, the other figures are still wanted
            traceback.print_exc()
            self.add({"name": name, "error": repr(error)})
            free_memory()
            return None
        for text in row["warnings"]:
            print(f"  warning: {text}", flush=True)
        self.add(row)
        speed: float = row["sentences_per_second"]
        print(f"{name:<52} {speed:9.1f} 句/秒", flush=True)
        return speed

    def _time(self, name: str, prepare: Any) -> dict[str, Any]:
        on_gpu = torch.cuda.is_available()
        seconds, count = [], 0
        for number in range(self.repeats + 1):
            action = prepare(number == 0)
            free_memory()
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            count = action()
            if on_gpu:
                torch.cuda.synchronize()
            if number:
                seconds.append(time.perf_counter() - start)
        return {
            "name": name,
            "sentences_per_second": count / statistics.median(seconds),
            "seconds": seconds,
            "sentences": count,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        }


class Bench:
    """The measurements of one network.

    Args:
        record: Where figures go.
        arguments: Of the command.
        weights: `bf16` or `nf4`.
    """

    def __init__(self, record: Record, arguments: argparse.Namespace, weights: str) -> None:
        self.record = record
        self.arguments = arguments
        self.weights = weights
        self.model = build_network(arguments.shape, weights, torch.device(arguments.device))
        self.tokenizer = ChatGLMTokenizer(str(arguments.vocabulary))
        self.vocabulary = build_vocabulary(self.tokenizer)

    def run(self) -> None:
        """Measures everything, first what matters most."""
        for size in self.arguments.stock_batch_sizes:
            self.measure_stock(size)
        on_gpu = torch.cuda.is_available()
        for graphs in (True, False) if on_gpu and self.arguments.without_graphs else (on_gpu,):
            for size in sorted(self.arguments.batch_sizes, reverse=True):
                self.measure_ours(size, graphs=graphs)
        for size in self.arguments.batch_sizes:
            self.measure_prompts(size)

    def make_prompts(self, batch_size: int, *, for_warmup: bool) -> list[list[int]]:
        """One batch for warm-up, else all rounds."""
        rounds = 1 if for_warmup else self.arguments.rounds
        return make_prompts(batch_size * rounds, self.model.config)

    def measure_stock(self, batch_size: int) -> None:
        """`model.generate`."""

        def prepare(for_warmup: bool) -> Any:
            prompts = self.make_prompts(batch_size, for_warmup=for_warmup)
            return lambda: run_stock(self.model, prompts, batch_size)

        self.record.measure(f"{self.weights} stock generate, batch {batch_size}", prepare)

    def measure_ours(self, batch_size: int, *, graphs: bool) -> None:
        """This package, free and constrained, and what share of the time the constraint takes."""
        kind = f"{', graphs' if graphs else ''}, batch {batch_size}"
        speeds = []
        for name, is_held in (("free", False), ("constrained", True)):

            def prepare(for_warmup: bool, is_held: bool = is_held) -> Any:
                prompts = self.make_prompts(batch_size, for_warmup=for_warmup)
                guides = None
                if is_held:
                    guides = make_guides(len(prompts), self.tokenizer, self.vocabulary)
                return lambda: run_ours(
                    self.model, prompts, batch_size, graphs=graphs, guides=guides
                )

            speeds.append(self.record.measure(f"{self.weights} {name}{kind}", prepare))
        free, held = speeds
        if free is not None and held is not None:
            self.record.rows[-1]["constraint_share_of_time"] = 1 - held / free
            print(f"{'':<52} 约束占时间 {100 * (1 - held / free):.1f}%", flush=True)

    def measure_prompts(self, batch_size: int) -> None:
        """Reading the prompts and writing one token."""

        def prepare(for_warmup: bool) -> Any:
            prompts = self.make_prompts(batch_size, for_warmup=for_warmup)
            return lambda: run_ours(self.model, prompts, batch_size, graphs=False, num_new=1)

        self.record.measure(f"{self.weights} prompts alone, batch {batch_size}", prepare)


def measure_guides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of processor time that the guides of one sentence take."""
    tokenizer = ChatGLMTokenizer(str(arguments.vocabulary))
    vocabulary = build_vocabulary(tokenizer)
    guides = make_guides(200, tokenizer, vocabulary)
    sizes = []
    start = time.process_time()
    for guide in guides:
        for _ in range(NUM_NEW_TOKENS):
            sizes.append(len(guide.allowed()))
            guide.advance(0)
    spent = (time.process_time() - start) / len(guides)
    print(f"{'guide alone':<44} {1000 * spent:9.2f} 毫秒/句", flush=True)
    return {
        "name": "guide alone",
        "milliseconds_per_sentence": 1000 * spent,
        "mean_allowed_tokens": float(np.mean(sizes)),
    }


def measure_weights(record: Record, arguments: argparse.Namespace, weights: str) -> None:
    """All rows for one kind of weights."""
    try:
        bench = Bench(record, arguments, weights)
    except Exception as error:  # without bitsandbytes, say, the others can still be measured
        traceback.print_exc()
        record.add({"name": weights, "error": repr(error)})
        return
    if weights == "nf4":
        from tripletune.models.nf4_products import expand_for_many_tokens

        if arguments.plain_nf4:
            bench.weights = "nf4 (bitsandbytes' products)"
            bench.measure_ours(max(arguments.batch_sizes), graphs=torch.cuda.is_available())
            bench.weights = "nf4"
        expand_for_many_tokens(bench.model)
    bench.run()


def profile_steps(arguments: argparse.Namespace) -> None:
    """Prints where the device's time goes, for the first kind of weights and largest batch."""
    from torch.profiler import ProfilerActivity, profile

    bench = Bench(Record(arguments), arguments, arguments.weights[0])
    size = max(arguments.batch_sizes)
    prompts = bench.make_prompts(size, for_warmup=True)
    for activities in ([], [ProfilerActivity.CPU, ProfilerActivity.CUDA]):
        with profile(activities=activities or [ProfilerActivity.CPU]) as found:
            run_ours(bench.model, prompts, size, graphs=False)
    on_gpu = torch.cuda.is_available()
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=80))


def main() -> None:
    """Measures and prints."""
    embedded = resources.files("tripletune") / "assets" / "embedded" / "ice_text.model"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", choices=["bf16", "nf4"], default=["bf16", "nf4"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--stock_batch_sizes", nargs="+", type=int, default=[32])
    parser.add_argument("--rounds", type=int, default=3, help="sentences = batch size * rounds")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without_graphs", action="store_true", help="also without CUDA graphs")
    parser.add_argument(
        "--plain_nf4", action="store_true", help="also with bitsandbytes' products of NF4"
    )
    parser.add_argument("--shape", choices=["chatglm-6b", "tiny"], default="chatglm-6b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vocabulary", type=Path, default=Path(str(embedded)))
    parser.add_argument(
        "--time_limit", type=float, default=400.0, help="seconds after which nothing more is begun"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.profile:
        profile_steps(arguments)
        return
    record = Record(arguments)
    record.add(measure_guides(arguments))
    for weights in arguments.weights:
        measure_weights(record, arguments, weights)
        free_memory()


if __name__ == "__main__":
    main()
