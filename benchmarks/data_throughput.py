"""Convert and check a data file of any size; prints a table and writes JSON.

    python benchmarks/data_throughput.py --gigabytes 1 --json data_throughput.json

The file is made by this script in DuIE 2.0 form: sentences of random words from a seeded
vocabulary, 0 to 4 triplets, with one exact and one near repetition planted in every thousand lines.
Each step runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RELATIONS = ("作者", "导演", "主演", "出生地", "国籍", "总部地点", "成立日期", "毕业院校")
_TYPES = ("人物", "图书作品", "影视作品", "企业", "地点")


def main() -> None:
    """Run the steps and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--lines", type=int, help="how many lines, in place of gigabytes")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    wanted = (arguments.lines, 0) if arguments.lines else (0, int(arguments.gigabytes * 1e9))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, target = Path(folder) / "source.jsonl", Path(folder) / "canonical.jsonl"
        steps = [
            run_step("generate", write_source, source, wanted, arguments.seed),
            run_step("convert", convert, source, target),
            run_step("check", check, target),
        ]
    print_table(steps)
    if arguments.json is not None:
        machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
        record = {"machine": machine, "python": platform.python_version(), "steps": steps}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def run_step(name: str, action: Callable[..., dict[str, int]], *arguments: Any) -> dict[str, Any]:
    """The figures of an action that runs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, action, arguments))
    process.start()
    sender.close()
    try:
        figures: dict[str, Any] = receiver.recv()
    except EOFError:
        sys.exit(f"{name}: the step failed")
    finally:
        process.join()
    return {"step": name, **figures}


def write_source(path: Path, wanted: tuple[int, int], seed: int) -> dict[str, int]:
    """Write at least so many lines and bytes, in blocks of 1,000 lines, and return how many."""
    rng = random.Random(seed)
    words = ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(rng.choice((2, 2, 3, 4))))
             for _ in range(20_000)]  # fmt: skip
    written, lines = 0, 0
    with path.open("wb") as file:
        while lines < wanted[0] or written < wanted[1]:
            block = [build_line(rng, words) for _ in range(998)]
            block.append(block[rng.randrange(500)])
            block.append(block[500].replace('", "spo_list"', '了", "spo_list"', 1))
            raw = "".join(block).encode()
            file.write(raw)
            written += len(raw)
            lines += len(block)
    return {"lines": lines, "bytes": written}


def build_line(rng: random.Random, words: list[str]) -> str:
    """One DuIE 2.0 line."""
    chosen = rng.choices(words, k=rng.randrange(8, 28))
    text = "，".join("".join(chosen[i : i + 6]) for i in range(0, len(chosen), 6)) + "。"
    entries = [
        {
            "predicate": rng.choice(_RELATIONS),
            "object_type": {"@value": rng.choice(_TYPES)},
            "subject_type": rng.choice(_TYPES),
            "object": {"@value": chosen[2 * i + 1]},
            "subject": chosen[2 * i],
        }
        for i in range(rng.choice((0, 1, 1, 2, 4)))
    ]
    return json.dumps({"text": text, "spo_list": entries}, ensure_ascii=False) + "\n"


def convert(source: Path, target: Path) -> dict[str, int]:
    """Convert the file and return what came out."""
    from tripletune.data.convert import convert_file

    report = convert_file(source, target)
    return {"lines": report.num_examples, "bytes": source.stat().st_size}


def check(path: Path) -> dict[str, int]:
    """Check the file and return what was found."""
    from tripletune.data.check import check_files

    report = check_files([path])
    return {
        "lines": report.files[0].num_examples,
        "bytes": path.stat().st_size,
        "duplicates": report.counts["duplicate_text"],
        "near_duplicates": report.counts["near_duplicate"],
    }


def print_table(steps: list[dict[str, Any]]) -> None:
    """One line a step."""
    titles = ("step", "lines", "seconds", "cpu s", "lines/s", "MB/s", "peak MiB")
    print("".join(f"{title:>11}" for title in titles))
    for step in steps:
        seconds = step["seconds"]
        figures = (
            step["step"],
            f"{step['lines']:,}",
            f"{seconds:.1f}",
            f"{step['processor_seconds']:.1f}",
            f"{step['lines'] / seconds:,.0f}",
            f"{step['bytes'] / seconds / 1e6:.1f}",
            f"{step['peak_mib']:,.0f}",
        )
        print("".join(f"{figure:>11}" for figure in figures))


def _measure(
    sender: Any, action: Callable[..., dict[str, int]], arguments: tuple[Any, ...]
) -> None:
    start, start_processor = time.perf_counter(), time.process_time()
    figures = action(*arguments)
    seconds = time.perf_counter() - start
    processor_seconds = time.process_time() - start_processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    peak_mib = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    sender.send(
        {
            **figures,
            "seconds": seconds,
            "processor_seconds": processor_seconds,
            "peak_mib": peak_mib,
        }
    )


if __name__ == "__main__":
    main()
