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
from tripletune.data.collate import PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.data.generator.base_tasks import iter_base_pairs
from tripletune.data.prompts import encode_answer, encode_prompt
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loading import load_tokenizer

MAX_TOKENS = 320
POOL_BATCHES = 24


def produce(worker: int, seed: int, chunk_pairs: int, queue: Any) -> None:
    """Fills the queue with chunks of tokenized pairs, for ever."""
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    chunk = 0
    while True:
        ids: list[np.ndarray[Any, Any]] = []
        prompts: list[int] = []
        for query, answer in iter_base_pairs(seed + 7919 * worker + 104729 * chunk, chunk_pairs):
            prompt = encode_prompt(tokenizer, query)
            tokens = prompt + encode_answer(tokenizer, answer)
            if len(tokens) <= MAX_TOKENS:
                ids.append(np.array(tokens, dtype=np.uint16))
                prompts.append(len(prompt))
        queue.put((ids, prompts))
        chunk += 1


def iter_batches(args: argparse.Namespace) -> Iterator[list[TokenizedExample]]:
    """Batches of about `batch_tokens` tokens of examples of similar length, in a fixed order."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(maxsize=4) for _ in range(args.workers)]
    for worker, queue in enumerate(queues):
        context.Process(
            target=produce, args=(worker, args.seed, args.chunk_pairs, queue), daemon=True
        ).start()
    chance = np.random.default_rng(args.seed)
    while True:
        pool: list[TokenizedExample] = []
        for queue in queues:
            ids, prompts = queue.get()
            pool += [
                TokenizedExample(tokens.tolist(), length)
                for tokens, length in zip(ids, prompts, strict=True)
            ]
        pool.sort(key=len)
        batches: list[list[TokenizedExample]] = []
        batch: list[TokenizedExample] = []
        for example in pool:
            if (len(batch) + 1) * len(example) > args.batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(example)
        chance.shuffle(batches)  # type: ignore[arg-type]
        yield from batches


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
    parser.add_argument("--chunk_pairs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--max_minutes", type=float, default=8.0)
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    model = build_model(args, tokenizer).to(device)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.05, fused=device.type == "cuda"
    )
    collate = PaddedCollator(tokenizer.pad_token_id, "two_rows")
    model.train()
    history, started, tokens, stopped = [], time.perf_counter(), 0, args.steps
    running = torch.zeros((), device=device)
    for step, batch in enumerate(iter_batches(args)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        inputs = {k: v.to(device, non_blocking=True) for k, v in collate(batch).items()}
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += sum(map(len, batch))
        running += loss.detach()
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - started
            history.append({"step": step + 1, "loss": float(running) / 100, "seconds": seconds})
            print(f"step {step + 1}  loss {history[-1]['loss']:.4f}  {tokens / seconds:,.0f} tok/s",
                  flush=True)
            running.zero_()
            if seconds > 60 * args.max_minutes:
                stopped = step + 1
                print(f"stopped at step {stopped}: --max_minutes is over", flush=True)
                break
        if step + 1 == args.steps:
            break
    model.half().save_pretrained(args.output, max_shard_size="10MB")
    record = {"arguments": {k: str(v) for k, v in vars(args).items()}, "steps": stopped,
              "tokens": tokens, "seconds": time.perf_counter() - started, "history": history}
    (args.output / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
