"""Sentences a second of extraction, against the stock `generate` of transformers, in one run.

    python benchmarks/extract_throughput.py --weights bf16 nf4 --batch_sizes 256 512

A network of ChatGLM-6B's shape with random weights reads prompts of 80 tokens and writes exactly 40
tokens for each. Measured are

- stock: `model.generate`, one batch after another;
- free: this package's generation without constraint (slots, with and without CUDA graphs);
- constrained: the same with a guide for every sentence, each doing its real work for a sentence of
  the length of DuIE's and an answer of 40 tokens. Which token comes next is scripted, since random
  weights would not write triplets.

The table has the median of the repeats; `--json` writes everything, with the versions.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

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

    def __init__(self, guide: TripletGuide, script: list[int]) -> None:
        self.guide = guide
        self.script = iter(script)

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
        quantise(model, dtype)
    return model.eval()


def quantise(model: Any, dtype: torch.dtype) -> None:
    """Replaces the linear layers of the blocks by NF4 ones with double quantisation, in place."""
    import bitsandbytes as bnb

    for layer in model.transformer.layers:
        for parent in (layer.attention, layer.mlp):
            for name, module in list(parent.named_children()):
                if not isinstance(module, torch.nn.Linear):
                    continue
                four_bit = bnb.nn.Linear4bit(
                    module.in_features,
                    module.out_features,
                    bias=module.bias is not None,
                    compute_dtype=dtype,
                    quant_type="nf4",
                    compress_statistics=True,
                )
                four_bit.weight = bnb.nn.Params4bit(
                    module.weight.data, requires_grad=False, quant_type="nf4"
                )
                four_bit.bias = module.bias
                setattr(parent, name, four_bit.to(module.weight.device))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
    model: Any, prompts: list[list[int]], batch_size: int, *, graphs: bool, guides: Any = None
) -> int:
    """Number of sentences that this package wrote."""
    options = GenerationOptions(
        end_token_id=NEVER,
        pad_token_id=3,
        max_new_tokens=NUM_NEW_TOKENS,
        batch_size=batch_size,
        method="slots",
        use_cuda_graphs=graphs,
    )
    results = generate_greedy(model, prompts, options, guides=guides)
    assert all(len(result.token_ids) == NUM_NEW_TOKENS for result in results)
    return len(results)


def measure(name: str, action: Any, repeats: int) -> dict[str, Any]:
    """Sentences a second of an action, which is run once more before for warm-up."""
    on_gpu = torch.cuda.is_available()
    seconds = []
    count = 0
    for number in range(repeats + 1):
        prepared = action()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        count = prepared()
        if on_gpu:
            torch.cuda.synchronize()
        if number:
            seconds.append(time.perf_counter() - start)
    row = {
        "name": name,
        "sentences_per_second": count / statistics.median(seconds),
        "seconds": seconds,
        "sentences": count,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }
    print(f"{name:<44} {row['sentences_per_second']:9.1f} 句/秒", flush=True)
    return row


def measure_weights(weights: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows for one kind of weights."""
    device = torch.device(arguments.device)
    model = build_network(arguments.shape, weights, device)
    tokenizer = ChatGLMTokenizer(str(arguments.vocabulary))
    vocabulary = build_vocabulary(tokenizer)
    rows = []
    for batch_size in arguments.stock_batch_sizes:
        prompts = make_prompts(batch_size * arguments.rounds, model.config)
        rows.append(
            measure(
                f"{weights} stock generate, batch {batch_size}",
                lambda p=prompts, b=batch_size: lambda: run_stock(model, p, b),
                arguments.repeats,
            )
        )
    for batch_size in arguments.batch_sizes:
        prompts = make_prompts(batch_size * arguments.rounds, model.config)
        for graphs in (False, True) if arguments.graphs else (False,):
            kind = ", graphs" if graphs else ""
            free = measure(
                f"{weights} free{kind}, batch {batch_size}",
                lambda p=prompts, b=batch_size, g=graphs: lambda: run_ours(model, p, b, graphs=g),
                arguments.repeats,
            )

            def prepare(p: Any = prompts, b: int = batch_size, g: bool = graphs) -> Any:
                guides = make_guides(len(p), tokenizer, vocabulary)
                return lambda: run_ours(model, p, b, graphs=g, guides=guides)

            held = measure(
                f"{weights} constrained{kind}, batch {batch_size}", prepare, arguments.repeats
            )
            share = 1 - held["sentences_per_second"] / free["sentences_per_second"]
            held["constraint_share_of_time"] = share
            print(f"{'':<44} 约束占时间 {100 * share:.1f}%", flush=True)
            rows += [free, held]
    return rows


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


def main() -> None:
    """Measures and prints."""
    embedded = resources.files("tripletune") / "assets" / "embedded" / "ice_text.model"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", choices=["bf16", "nf4"], default=["bf16", "nf4"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--stock_batch_sizes", nargs="+", type=int, default=[32])
    parser.add_argument("--rounds", type=int, default=3, help="sentences = batch size * rounds")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--graphs", action="store_true", help="also with CUDA graphs")
    parser.add_argument("--shape", choices=["chatglm-6b", "tiny"], default="chatglm-6b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vocabulary", type=Path, default=Path(str(embedded)))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [measure_guides(arguments)]
    for weights in arguments.weights:
        rows += measure_weights(weights, arguments)
    if arguments.json is not None:
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
        record = {
            "device": name,
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "shape": arguments.shape,
            "prompt_tokens": NUM_PROMPT_TOKENS,
            "new_tokens": NUM_NEW_TOKENS,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n")


if __name__ == "__main__":
    main()
