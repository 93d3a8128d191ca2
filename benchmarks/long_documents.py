"""Recall with length: sentences alone, and the same ones joined to long documents.

    python benchmarks/long_documents.py --adapter output/adapter --data val.jsonl --json out.json

Every text of the data is extracted from alone; then the texts are joined, a paragraph each, to
documents of about 2,000, 10,000 and 50,000 characters, the last one shorter, and extracted from in
windows. A gold triplet counts as found when the document's extraction has it with its relation and
the exact items. Then one document of 100,000 characters (the texts over and over) is read, for time
and memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tripletune.data.readers import load_examples
from tripletune.extraction.extractor import Extractor
from tripletune.schema import Example, Triplet


def join_examples(examples: Sequence[Example], length: int) -> list[Example]:
    """Documents of at least `length` characters each, but for the last one."""
    documents: list[Example] = []
    texts: list[str] = []
    triplets: dict[Triplet, None] = {}
    for number, example in enumerate(examples, 1):
        texts.append(example.text)
        triplets.update(dict.fromkeys(example.triplets))
        if sum(map(len, texts)) + len(texts) > length or number == len(examples):
            documents.append(Example("\n".join(texts), tuple(triplets)))
            texts, triplets = [], {}
    return documents


def measure(extractor: Extractor, examples: Sequence[Example]) -> dict[str, Any]:
    """Recall, precision and time of extracting from texts or documents."""
    start = time.perf_counter()
    extractions = extractor.extract([example.text for example in examples])
    seconds = time.perf_counter() - start
    pairs = [
        (set(example.triplets), set(extraction.triplets))
        for example, extraction in zip(examples, extractions, strict=True)
    ]
    num_found = sum(len(gold & found) for gold, found in pairs)
    num_gold = sum(len(gold) for gold, _ in pairs)
    num_predicted = sum(len(found) for _, found in pairs)
    return {
        "texts": len(examples),
        "mean_chars": sum(len(example.text) for example in examples) / len(examples),
        "windows": sum(1 for e in examples for _ in extractor.iter_windows(e.text)),
        "gold": num_gold,
        "recall": num_found / num_gold if num_gold else None,
        "precision": num_found / num_predicted if num_predicted else None,
        "seconds": seconds,
    }


def measure_memory(extractor: Extractor, text: str) -> dict[str, Any]:
    """Time and memory of one document; of memory, what was not in use before."""
    on_gpu = extractor.model.device.type == "cuda"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    (extraction,) = extractor.extract([text])
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "chars": len(text),
        "windows": sum(1 for _ in extractor.iter_windows(text)),
        "triplets": len(extraction.triplets),
        "seconds": seconds,
        "peak_mib": after / 1024,
        "more_than_before_mib": (after - before) / 1024,
        "gpu_peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--base_model", help="default: the one the adapter was trained on")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--max_texts", type=int)
    parser.add_argument("--lengths", nargs="+", type=int, default=[2000, 10000, 50000])
    parser.add_argument("--long_chars", type=int, default=100_000, help="0: not measured")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--window_chars", type=int, help="default: as the adapter was trained")
    parser.add_argument("--window_sentences", type=int, help="likewise")
    parser.add_argument("--free", action="store_true", help="without constraint")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    examples = load_examples(arguments.data)[: arguments.max_texts]
    extractor = Extractor.from_pretrained(
        arguments.adapter,
        base_model=arguments.base_model,
        constrained=False if arguments.free else None,
        batch_size=arguments.batch_size,
        window_chars=arguments.window_chars,
        window_sentences=arguments.window_sentences,
    )
    extractor.extract([examples[0].text])
    print(
        f"windows of {extractor.window_chars} characters, {extractor.window_sentences} sentences",
        flush=True,
    )
    rows: dict[str, Any] = {}
    if arguments.long_chars:
        joined = "\n".join(example.text for example in examples) + "\n"
        times = -(-arguments.long_chars // len(joined))
        text = (joined * times)[: arguments.long_chars]
        rows["long"] = row = measure_memory(extractor, text)
        print(
            f"{row['chars']:,} characters: {row['seconds']:.1f} s, {row['windows']} windows, "
            f"{row['more_than_before_mib']:.0f} MiB more than before",
            flush=True,
        )
    rows["alone"] = measure(extractor, examples)
    for length in arguments.lengths:
        rows[str(length)] = measure(extractor, join_examples(examples, length))
    for name, row in rows.items():
        if name != "long":
            print(
                f"{name:>8}: recall {row['recall']:.4f}  precision {row['precision']:.4f}  "
                f"{row['texts']} texts of {row['mean_chars']:,.0f} characters, {row['windows']} "
                f"windows, {row['seconds']:.1f} s"
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
