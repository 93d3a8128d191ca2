"""Trains the embedded base model: a small ChatGLM that knows sentences, not the triplet format.

    python scripts/train_base_model.py --output build/embedded

Reads nothing but what the project generates (`iter_base_pairs`, pool `base`); the tokenizer is the
one of `scripts/build_base_tokenizer.py`. One GPU, a few minutes; the same seed and number of steps
see the same data in the same order. Writes config.json, weights (half precision) and
`training.json` with settings, losses and time.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tripletune.config import EMBEDDED_MODEL
from tripletune.data.generator.base_tasks import iter_base_pairs
from tripletune.data.prompts import encode_answer, encode_prompt
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loading import resolve_model_path
from tripletune.models.tokenization_chatglm import ChatGLMTokenizer

MAX_TOKENS = 320
Array = np.ndarray[Any, Any]


def produce(worker: int, args: argparse.Namespace, queue: Any) -> None:
    """Fills the queue with batches (ids, prompt lengths, lengths), for ever."""
    tokenizer = ChatGLMTokenizer.from_pretrained(resolve_model_path(EMBEDDED_MODEL))
    chance = np.random.default_rng([args.seed, worker])
    chunk = 0
    while True:
        seed = args.seed + 7919 * worker + 104729 * chunk
        rows: list[tuple[list[int], int]] = []
        for query, answer in iter_base_pairs(seed, args.chunk_pairs):
            prompt = encode_prompt(tokenizer, query)
            tokens = prompt + encode_answer(tokenizer, answer)
            if len(tokens) <= MAX_TOKENS:
                rows.append((tokens, len(prompt)))
        batches = list(cut_into_batches(rows, args.batch_tokens, tokenizer.pad_token_id))
        for index in chance.permutation(len(batches)):
            queue.put(batches[index])
        chunk += 1


def cut_into_batches(
    rows: list[tuple[list[int], int]], batch_tokens: int, pad_token_id: int
) -> Iterator[tuple[Array, Array, Array]]:
    """Padded batches of rows of similar length, each of at most `batch_tokens` tokens."""
    rows.sort(key=lambda row: len(row[0]))
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end + 1 - start) * len(rows[end][0]) <= batch_tokens:
            end += 1
        batch = rows[start:end]
        ids = np.full((len(batch), len(batch[-1][0])), pad_token_id, dtype=np.uint16)
        for row, (tokens, _) in enumerate(batch):
            ids[row, : len(tokens)] = tokens
        prompts = np.array([prompt for _, prompt in batch], dtype=np.int64)
        lengths = np.array([len(tokens) for tokens, _ in batch], dtype=np.int64)
        yield ids, prompts, lengths
        start = end


def iter_batches(args: argparse.Namespace) -> Iterator[tuple[Array, Array, Array]]:
    """Batches of all workers in turn, so in the same order every time."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(maxsize=40) for _ in range(args.workers)]
    for worker, queue in enumerate(queues):
        context.Process(target=produce, args=(worker, args, queue), daemon=True).start()
    while True:
        for queue in queues:
            yield queue.get()


def build_inputs(
    ids: Array, prompts: Array, lengths: Array, device: torch.device
) -> dict[str, torch.Tensor]:
    """The tensors of one step, made on the device."""
    input_ids = torch.from_numpy(ids.astype(np.int64)).to(device, non_blocking=True)
    prompt = torch.from_numpy(prompts).to(device)[:, None]
    length = torch.from_numpy(lengths).to(device)[:, None]
    index = torch.arange(ids.shape[1], device=device)[None]
    is_real = index < length
    context = prompt - 1
    first = torch.where(index < context, index, context - 1)
    second = torch.where(index < context, 0, index - context + 1)
    return {
        "input_ids": input_ids,
        "labels": torch.where(is_real & (index >= prompt), input_ids, -100),
        "attention_mask": is_real.long(),
        "position_ids": torch.stack([first, second], dim=1) * is_real[:, None],
    }


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine to a twentieth."""
    if step < args.warmup_steps:
        return float(args.learning_rate * (step + 1) / args.warmup_steps)
    done = (step - args.warmup_steps) / max(1, args.steps - args.warmup_steps)
    return float(args.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))))


def build_model(args: argparse.Namespace, tokenizer: Any) -> ChatGLMForConditionalGeneration:
    """A fresh network of the size asked for, on the tokenizer's vocabulary."""
    config = ChatGLMConfig(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=args.hidden_size,
        num_layers=args.num_layers,
        num_attention_heads=args.hidden_size // 32,
        inner_hidden_size=4 * args.hidden_size,
        max_sequence_length=2048,
        mask_token_id=tokenizer.mask_token_id,
        gmask_token_id=tokenizer.gmask_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(args.seed)
    return ChatGLMForConditionalGeneration(config)


def main() -> None:
    """Trains and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/embedded"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch_tokens", type=int, default=65536)
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--warmup_steps", type=int, default=200)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=10)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--chunk_pairs", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument(
        "--minutes", type=float, help="choose --steps from the speed of the first steps"
    )
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    tokenizer = ChatGLMTokenizer.from_pretrained(resolve_model_path(EMBEDDED_MODEL))
    model = build_model(args, tokenizer).to(device)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=1.0,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        fused=device.type == "cuda",
    )
    model.train()
    history, started, measured, tokens = [], time.perf_counter(), 0.0, 0
    running = torch.zeros((), device=device)
    for step, batch in enumerate(iter_batches(args)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        inputs = build_inputs(*batch, device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += int(batch[2].sum())
        running += loss.detach()
        if args.minutes and step + 1 == 60:
            torch.cuda.synchronize()
            measured = time.perf_counter()
        if args.minutes and step + 1 == 120:
            torch.cuda.synchronize()
            each = (time.perf_counter() - measured) / 60
            args.steps = int((60 * args.minutes - (time.perf_counter() - started)) / each) + 120
            print(f"{each * 1000:.1f} ms a step: {args.steps} steps", flush=True)
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - started
            history.append({"step": step + 1, "loss": float(running) / 100, "seconds": seconds})
            print(
                f"step {step + 1}  loss {history[-1]['loss']:.4f}  {tokens / seconds:,.0f} tok/s",
                flush=True,
            )
            running.zero_()
        if step + 1 == args.steps:
            break
    model.half().save_pretrained(args.output, max_shard_size="10MB")
    record = {
        "arguments": {k: str(v) for k, v in vars(args).items()},
        "steps": args.steps,
        "tokens": tokens,
        "seconds": time.perf_counter() - started,
        "history": history,
    }
    (args.output / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
