"""Write what the embedded base model is trained on to a file.

`python scripts/base_corpus.py --num 1000000 --processes 2 --output corpus.jsonl`: one JSON object a
line with `query` and `answer`. The training script takes the same pairs straight from
`tripletune.data.generator.base_tasks.iter_base_pairs`; this file is for looking at them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

from tripletune.data.generator.base_tasks import iter_base_pairs

_CHUNK = 20_000


def render_chunk(arguments: tuple[int, int]) -> str:
    """The lines of `num` pairs of a seed, given as (seed, num)."""
    seed, num = arguments
    lines = [
        json.dumps({"query": query, "answer": answer}, ensure_ascii=False) + "\n"
        for query, answer in iter_base_pairs(seed, num)
    ]
    return "".join(lines)


def iter_chunks(num: int, seed: int) -> Iterator[tuple[int, int]]:
    """(seed, number of pairs) of every chunk of a corpus."""
    for index, start in enumerate(range(0, num, _CHUNK)):
        yield seed * 1_000_000 + index, min(_CHUNK, num - start)


def main() -> None:
    """Write the corpus and say how fast it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=100_000, help="number of pairs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="JSON Lines file to write")
    arguments = parser.parse_args()
    start = time.perf_counter()
    chunks = iter_chunks(arguments.num, arguments.seed)
    with (
        multiprocessing.Pool(arguments.processes) as pool,
        arguments.output.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for text in pool.imap(render_chunk, chunks):
            file.write(text)
    seconds = time.perf_counter() - start
    print(f"{arguments.num} pairs in {seconds:.1f} s ({arguments.num / seconds:,.0f} a second)")


if __name__ == "__main__":
    main()
