"""Tokens a second and peak memory of QLoRA training, for each way of running it.

    python benchmarks/train_throughput.py --family chatglm-6b --output results.json

Full-size network with random weights quantised to NF4, LoRA r 8 on query_key_value, 903 random
sentences with prompts of 45 to 120 and answers of 12 to 70 tokens (no padding counted), or the
examples of `--data`. A row is the median of three runs of `--steps` optimizer steps, collating and
copying included, after warm-up. Rows of 8,448 and 16,896 tokens fill the 132 processors of an H100
in whole waves of the tiles that its products are cut into; 5,248 nearly do.

`stock` is the padded, checkpointed path with plain PEFT and bitsandbytes modules; the others are
what `tripletune train` uses. `matrix_share` is what part of the card's measured bf16 rate the
products of the blocks come to, those of recomputing not counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from random_model import OFFICIAL
from torch import nn
from transformers import LlamaForCausalLM

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample, encode_examples
from tripletune.data.readers import load_examples
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.chatglm2 import ChatGLM2ForConditionalGeneration
from tripletune.models.loading import find_position_scheme, load_tokenizer
from tripletune.training.acceleration import accelerate_layers, speed_up_network
from tripletune.training.adapters import add_lora
from tripletune.training.offload import offload_activations

NETWORKS = {
    "chatglm-6b": ChatGLMForConditionalGeneration,
    "chatglm2-6b": ChatGLM2ForConditionalGeneration,
    "llama-7b": LlamaForCausalLM,
}
LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "stock-4": {"batch": 4, "checkpoint": True},
    "stock-16": {"batch": 16, "checkpoint": True},
    "packed": {"row": 8192},
    "packed-uncompiled": {"row": 8192, "compiled": False},
    "packed-16384": {"row": 16384},
    "packed-kept": {"row": 8192, "keep": True},
    "packed-8448-kept": {"row": 8448, "keep": True},
    "packed-16384-kept": {"row": 16384, "keep": True},
    "packed-16896-kept": {"row": 16896, "keep": True},
    "packed-fp8": {"row": 8192, "fp8": True},
    "packed-checkpointed": {"row": 4096, "checkpoint": True},
    "packed-checkpointed-5248": {"row": 5248, "checkpoint": True},
    "packed-checkpointed-8192": {"row": 8192, "checkpoint": True},
    "packed-offloaded": {"row": 4096, "checkpoint": True, "offload": True},
    "packed-offloaded-fp8": {"row": 4096, "checkpoint": True, "offload": True, "fp8": True},
}


def build_model(family: str, num_layers: int) -> Any:
    """The NF4 network with LoRA, random weights, on the GPU."""
    return add_lora(
        build_network(family, num_layers), rank=8, alpha=32, dropout=0.1, model_name=family,
        target_modules=(
            ("q_proj", "k_proj", "v_proj") if family == "llama-7b" else ("query_key_value",)
        ),
    )  # fmt: skip


def build_network(family: str, num_layers: int) -> Any:
    """The NF4 network, random weights, on the GPU."""
    import bitsandbytes as bnb

    network = NETWORKS[family]
    fields = {**OFFICIAL, "llama-7b": LLAMA}[family]
    fields = {k: v for k, v in fields.items() if k not in ("model_type", "torch_dtype")}
    layers = "num_hidden_layers" if family == "llama-7b" else "num_layers"
    config: Any = network.config_class(**{**fields, layers: num_layers or fields[layers]})
    torch.manual_seed(0)
    with torch.device("meta"):
        model = network(config).to(torch.bfloat16)
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not head:
            weight = torch.randn(module.weight.shape, device="cuda", dtype=torch.bfloat16) * 0.02
            layer = bnb.nn.Linear4bit(
                module.in_features, module.out_features, bias=module.bias is not None,
                compute_dtype=torch.bfloat16, quant_type="nf4", device="meta",
            )  # fmt: skip
            layer.weight = bnb.nn.Params4bit(
                weight, requires_grad=False, quant_type="nf4", compress_statistics=True
            ).cuda()
            if module.bias is not None:
                layer.bias = nn.Parameter(
                    torch.zeros(module.out_features, device="cuda", dtype=torch.bfloat16), False
                )
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer)
    for module in model.modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                fresh = torch.randn(parameter.shape, device="cuda", dtype=torch.bfloat16) * 0.02
                fresh = fresh + 1.0 if parameter.dim() == 1 and key == "weight" else fresh
                module._parameters[key] = nn.Parameter(fresh, requires_grad=False)
        for key, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta:
                width = torch.arange(0, 2 * buffer.numel(), 2, device="cuda").float()
                module._buffers[key] = 1.0 / 10000.0 ** (width / (2 * buffer.numel()))
    model.tie_weights()
    return model


def make_examples(vocab_size: int, gmask: int, start: int) -> list[TokenizedExample]:
    """903 random sentences of the stated lengths."""
    chance = random.Random(0)
    examples = []
    for _ in range(903):
        prompt, answer = chance.randint(45, 120), chance.randint(12, 70)
        ids = [chance.randrange(10, vocab_size - 600) for _ in range(prompt - 2)] + [gmask, start]
        ids += [chance.randrange(10, vocab_size - 600) for _ in range(answer)]
        examples.append(TokenizedExample(ids, prompt))
    return examples


def read_examples(data: Path, tokenizer: str) -> list[TokenizedExample]:
    """The examples of a data file, as training has them."""
    encoded, _ = encode_examples(
        load_examples(data), load_tokenizer(tokenizer),
        max_source_tokens=512, max_target_tokens=256, long_texts="drop",
    )  # fmt: skip
    return list(encoded)


def count_operations(model: Any) -> int:
    """Operations a token of the frozen products of the blocks, forward and backward."""
    linear = (m for m in model.modules() if type(m).__name__ == "Linear4bit")
    return sum(4 * module.in_features * module.out_features for module in linear)


def fill_rows(examples: list[TokenizedExample], row: int) -> list[list[TokenizedExample]]:
    """The examples in order, cut into rows of at most `row` tokens."""
    rows: list[list[TokenizedExample]] = [[]]
    used = 0
    for example in examples:
        if used + len(example) > row:
            rows.append([])
            used = 0
        rows[-1].append(example)
        used += len(example)
    return rows


def to_gpu(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with its tensors on the GPU."""
    return {
        k: v.pin_memory().cuda(non_blocking=True) if torch.is_tensor(v) else v
        for k, v in batch.items()
    }


def measure(
    model: Any, batches: list[list[TokenizedExample]], collate: Any, steps: int, warmup: int
) -> dict[str, float]:
    """Median tokens/s of three runs of `steps` optimizer steps, and peak memory."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=2e-4, fused=True
    )
    model.train()
    torch.cuda.reset_peak_memory_stats()
    rates = []
    place = 0
    begun = time.perf_counter()
    for count in (warmup, steps, steps, steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        tokens = 0
        for _ in range(count):
            batch = batches[place % len(batches)]
            place += 1
            loss = model(**to_gpu(collate(batch))).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += sum(map(len, batch))
        torch.cuda.synchronize()
        rates.append(tokens / (time.perf_counter() - started))
        if len(rates) == 1:
            warm_seconds = time.perf_counter() - begun
    for batch in batches[:4]:
        model(**to_gpu(collate(batch))).loss.backward()
    clock = read_clock()  # while the card is still at work
    optimizer.zero_grad(set_to_none=True)
    return {
        "tokens_per_second": statistics.median(rates[1:]),
        "slowest": min(rates[1:]),
        "fastest": max(rates[1:]),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "warmup_seconds": warm_seconds,
        "loss": loss.item(),
        **clock,
    }


def read_clock() -> dict[str, float]:
    """Clock in MHz and power in W at this moment; empty where nvidia-smi is missing."""
    card = f"GPU-{torch.cuda.get_device_properties().uuid}"  # one of several, perhaps
    query = ["--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--id={card}", *query], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    clock, power = answer.stdout.splitlines()[0].split(",")
    return {"clock_mhz": float(clock), "watts": float(power)}


def profile_step(model: Any, batch: list[TokenizedExample], collate: Any) -> str:
    """Where one step's time goes, by kernel."""
    from torch.profiler import ProfilerActivity, profile

    inputs = to_gpu(collate(batch))
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        model(**inputs).loss.backward()
        torch.cuda.synchronize()
    return str(
        record.key_averages().table(
            sort_by="cuda_time_total", row_limit=25, max_name_column_width=70
        )
    )


def matrix_rate() -> float:
    """The card's bf16 rate on an 8192 x 4096 x 16384 product, in TFLOP/s."""
    a = torch.randn(8192, 4096, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(16384, 4096, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ b.T
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ b.T
    torch.cuda.synchronize()
    return 2 * 8192 * 4096 * 16384 * 20 / (time.perf_counter() - started) / 1e12


def main() -> None:
    """Measures the variants and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=NETWORKS, default="chatglm-6b")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--data", type=Path, help="labelled lines instead of random sentences")
    parser.add_argument("--tokenizer", default="", help="folder of the tokenizer, for --data")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--num_layers", type=int, default=0, help="0: all")
    parser.add_argument("--profile", nargs="*", default=[])
    parser.add_argument("--output", type=Path, default=Path("train_throughput.json"))
    args = parser.parse_args()
    results: dict[str, Any] = {
        "family": args.family, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "matrix_tflops": matrix_rate(), "variants": {},
    }  # fmt: skip
    print(f"{args.family} on {results['gpu']}: {results['matrix_tflops']:.0f} TFLOP/s", flush=True)
    for name in args.variants:
        variant = VARIANTS[name]
        started = time.perf_counter()
        model = build_model(args.family, args.num_layers)
        base = model.get_base_model()
        config = base.config
        scheme: Any = find_position_scheme(base)
        vocab = getattr(config, "padded_vocab_size", config.vocab_size)
        gmask = getattr(config, "gmask_token_id", vocab - 2)
        start = config.bos_token_id if scheme == "two_rows" else vocab - 1
        if args.data is None:
            examples = make_examples(vocab, gmask, start)
        else:
            examples = read_examples(args.data, args.tokenizer)
        if variant.get("checkpoint"):
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if "row" in variant:
            accelerate_layers(
                model, keep_weights=variant.get("keep", False), in_fp8=variant.get("fp8", False)
            )
            speed_up_network(model, compiled=variant.get("compiled", True))
            if variant.get("offload"):
                offload_activations(base)
            batches = fill_rows(examples, variant["row"])[:-1]
            collate: Any = PackedCollator(3, scheme, 128, count_labels=True)
        else:
            size = variant["batch"]
            batches = [examples[i : i + size] for i in range(0, len(examples) - size, size)]
            collate = PaddedCollator(3, scheme)
        built = time.perf_counter() - started
        result = measure(model, batches, collate, args.steps, args.warmup)
        rate = result["tokens_per_second"]
        result |= {
            "build_seconds": built,
            "tokens_an_example": sum(map(len, examples)) / len(examples),
            "seconds_for_903": 903 * sum(map(len, examples)) / len(examples) / rate,
            "matrix_share": rate * count_operations(model) / 1e12 / results["matrix_tflops"],
        }
        results["variants"][name] = result
        shown = "  ".join(f"{key} {value:,.4g}" for key, value in result.items())
        print(f"{name:24s} {result['tokens_per_second']:8,.0f} tok/s  {shown}", flush=True)
        if name in args.profile:
            print(profile_step(model, batches[0], collate), flush=True)
        del model, base
        gc.collect()
        torch.cuda.empty_cache()
        torch._dynamo.reset()
    args.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
