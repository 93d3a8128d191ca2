"""Synthetic sentences a minute: `python benchmarks/generate_throughput.py`.

Writes a training file of the default difficulty with 2 processes, from the facts to the bytes on
disk (distinct sentences, validation names avoided, difficulty report counted), and for comparison
with one process; the same for pairs of the embedded base model's corpus on one core. Prints a table
and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from tripletune.data.generator.base_tasks import iter_base_pairs
from tripletune.data.generator.dataset import DatasetPlan, write_dataset


def measure_sentences(num_sentences: int, num_processes: int, seed: int) -> dict[str, Any]:
    """Time and rate of writing a training file."""
    plan = DatasetPlan(num_sentences, 1000, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu_start = time.perf_counter(), cpu_seconds()
        train, _ = write_dataset(plan, Path(folder), num_processes=num_processes)
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
        size = train.path.stat().st_size
    return {
        "what": f"sentences, {num_processes} process{'es' if num_processes > 1 else ''}",
        "count": train.num_examples,
        "triplets": train.num_triplets,
        "file_mib": size / 2**20,
        "seconds": seconds,
        "per_minute": train.num_examples / seconds * 60,
        "cpu_microseconds_each": cpu / train.num_examples * 1e6,
    }


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_pairs(num_pairs: int, seed: int) -> dict[str, Any]:
    """Time and rate of making pairs of the base corpus."""
    start, cpu_start = time.perf_counter(), cpu_seconds()
    count = sum(1 for _ in iter_base_pairs(seed, num_pairs))
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    return {
        "what": "base pairs, 1 process",
        "count": count,
        "seconds": seconds,
        "per_minute": count / seconds * 60,
        "cpu_microseconds_each": cpu / count * 1e6,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=500_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows = [
        measure_sentences(arguments.sentences, arguments.processes, arguments.seed),
        measure_sentences(arguments.sentences // 4, 1, arguments.seed),
        measure_pairs(arguments.pairs, arguments.seed),
    ]
    for row in rows:
        rate = f"{row['per_minute']:>12,.0f} a minute"
        cpu = f"{row['cpu_microseconds_each']:6.1f} us of processor time each"
        print(f"{row['what']:>24}  {row['count']:>9,} in {row['seconds']:6.1f} s {rate} {cpu}")
    if arguments.output:
        result = {
            "seed": arguments.seed,
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d"),
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
