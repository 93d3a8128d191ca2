"""Time and memory of scoring a million triplets: `python benchmarks/score_throughput.py`.

Writes a gold and a predicted file from a seed, scores them in a fresh process with everything that
`tripletune score` computes (six rules, intervals, error classes, breakdowns, reading both files
included), prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RELATIONS = (
    "作者",
    "导演",
    "主演",
    "歌手",
    "国籍",
    "出生地",
    "毕业院校",
    "总部地点",
    "创始人",
    "成立日期",
)
CHARACTERS = (
    "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水"
)

CHILD = """
import json, resource, sys, time
start = time.perf_counter()
from tripletune.evaluation import evaluate_files
evaluation = evaluate_files(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": seconds,
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "peak_gib": usage.ru_maxrss / 2**20,
    "strict": evaluation.strict.to_dict(),
    "errors": dict(evaluation.errors.num_wrong),
}))
"""


def make_name(rng: random.Random) -> str:
    """A name of 2 to 5 characters; now and then with title marks or Latin letters."""
    name = "".join(rng.choices(CHARACTERS, k=rng.randint(2, 5)))
    chance = rng.random()
    if chance < 0.02:
        return f"《{name}》"
    return f"{name}Tv" if chance < 0.04 else name


def spoil(triplet: dict[str, str], rng: random.Random) -> dict[str, str] | None:
    """What a model of middling quality makes of a gold triplet; None when it misses it."""
    chance = rng.random()
    if chance < 0.70:
        return triplet
    if chance < 0.82:
        return None
    if chance < 0.87:
        return {**triplet, "relation": rng.choice(RELATIONS)}
    if chance < 0.92:
        return {**triplet, "object": triplet["object"][:-1]}
    if chance < 0.95:
        return {**triplet, "subject": triplet["object"], "object": triplet["subject"]}
    return {**triplet, "object": make_name(rng)}


def generate_rows(num_triplets: int, seed: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Gold and predicted records with `num_triplets` gold triplets altogether."""
    rng = random.Random(seed)
    row = 0
    while num_triplets:
        triplets, names = [], []
        for _ in range(min(num_triplets, rng.choice((1, 1, 1, 2, 2, 3, 4, 6)))):
            subject, object_ = make_name(rng), make_name(rng)
            names += [subject, object_]
            relation = rng.choice(RELATIONS)
            triplets.append({"subject": subject, "relation": relation, "object": object_})
        num_triplets -= len(triplets)
        text = f"第{row}句：" + "，与".join(names) + "有关。"
        spoiled = [spoil(triplet, rng) for triplet in triplets]
        predicted = [
            {**triplet, "confidence": round(rng.random(), 3)} for triplet in spoiled if triplet
        ]
        yield {"text": text, "triplets": triplets}, {"text": text, "triplets": predicted}
        row += 1


def write_files(folder: Path, num_triplets: int, seed: int) -> tuple[Path, Path]:
    """The gold and the predicted file, written into `folder`."""
    gold_path, predicted_path = folder / "gold.jsonl", folder / "pred.jsonl"
    with (
        gold_path.open("w", encoding="utf-8") as gold_file,
        predicted_path.open("w", encoding="utf-8") as predicted_file,
    ):
        for gold, predicted in generate_rows(num_triplets, seed):
            gold_file.write(json.dumps(gold, ensure_ascii=False) + "\n")
            predicted_file.write(json.dumps(predicted, ensure_ascii=False) + "\n")
    return gold_path, predicted_path


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triplets", type=int, default=1_000_000, help="gold triplets")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), arguments.triplets, arguments.seed)
        size = sum(path.stat().st_size for path in paths)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, paths)],
            check=True,
            capture_output=True,
            text=True,
        )
    result = {
        "triplets": arguments.triplets,
        "seed": arguments.seed,
        "file_mib": size / 2**20,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        **json.loads(done.stdout),
    }
    for name, value in result.items():
        print(f"{name:>14}  {value:.2f}" if isinstance(value, float) else f"{name:>14}  {value}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
