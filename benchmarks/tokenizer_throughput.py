"""Speed of a ChatGLM tokenizer beside SentencePiece itself, on the same Chinese sentences.

    python benchmarks/tokenizer_throughput.py FOLDER [FOLDER ...] [--texts FILE] [--json OUT]

A folder holds `ice_text.model` or `tokenizer.model` with its `tokenizer_config.json`. Two calls are
measured: one text at a time (`encode_text`), and a batch (`tokenizer(texts)`, which also makes mask
and positions where the family has them). SentencePiece makes ids alone, and takes all cores for a
batch; so the batch is compared with both of its calls. All sides alternate, and the best of several
rounds counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
from rich.console import Console
from rich.table import Table

ROUNDS = 7
PEOPLE = ["李思远", "王若兰", "陈国栋", "赵一鸣", "周海燕", "孙文博"]
PLACES = ["杭州市余杭区", "成都高新区", "武汉光谷", "苏州工业园区", "西安雁塔区"]
COMPANIES = ["远望智能科技有限公司", "青松生物制药集团", "长河新能源股份有限公司"]
FIELDS = ["计算机视觉与自然语言处理", "抗肿瘤新药", "储能电池与光伏组件"]


def build_sentences(count: int) -> list[str]:
    """Sentences of about 90 characters, all different."""
    sentences = []
    for index in range(count):
        person, partner = PEOPLE[index % 6], PEOPLE[(index // 6 + 1) % 6]
        place, company = PLACES[index % 5], COMPANIES[index % 3]
        sentences.append(
            f"{person}于{1950 + index % 60}年出生在{place}，后来与{partner}共同创办了{company}，"
            f"主要从事{FIELDS[index // 3 % 3]}的研发，注册资本为{index % 900 + 100}万元，"
            f"其总部设在{PLACES[index // 5 % 5]}，现有员工{index}人。"
        )
    return sentences


def best_seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Shortest time of each call, measured in turn so that all see the same machine."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def measure(folder: Path, texts: list[str]) -> dict[str, float]:
    """Characters a second of both calls on both sides, and the ratios."""
    from transformers import AutoTokenizer

    import tripletune  # noqa: F401  (registers the tokenizer classes)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    raw = sentencepiece.SentencePieceProcessor()
    raw.load(tokenizer.vocab_file)
    seconds = best_seconds(
        {
            "raw_each": lambda: [raw.encode(text) for text in texts],
            "ours_each": lambda: [tokenizer.encode_text(text) for text in texts],
            "raw_batch": lambda: raw.encode(texts),
            "ours_batch": lambda: tokenizer(texts),
        }
    )
    characters = sum(map(len, texts))
    speeds = {f"{name}_characters_per_second": characters / s for name, s in seconds.items()}
    return speeds | {
        "ratio_each": seconds["raw_each"] / seconds["ours_each"],
        "ratio_batch": seconds["raw_batch"] / seconds["ours_batch"],
        "ratio_batch_to_each": seconds["raw_each"] / seconds["ours_batch"],
    }


def main() -> None:
    """Measures every folder, prints a table and, on request, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--texts", type=Path, help="a text file, one sentence a line")
    parser.add_argument("--count", type=int, default=5000, help="sentences to make without --texts")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.texts is None:
        texts = build_sentences(arguments.count)
    else:
        texts = arguments.texts.read_text(encoding="utf-8").splitlines()
    results = {folder.name: measure(folder, texts) for folder in arguments.folders}
    table = Table(title=f"{len(texts)} sentences, {sum(map(len, texts))} characters")
    for heading in ("folder", "call", "SentencePiece, Mchar/s", "tokenizer, Mchar/s", "ratio"):
        table.add_column(heading)
    for name, result in results.items():
        for title, raw_call, call, ratio in (
            ("one at a time", "each", "each", "ratio_each"),
            ("batch, both", "batch", "batch", "ratio_batch"),
            ("batch, against one at a time", "each", "batch", "ratio_batch_to_each"),
        ):
            raw = result[f"raw_{raw_call}_characters_per_second"] / 1e6
            ours = result[f"ours_{call}_characters_per_second"] / 1e6
            table.add_row(name, title, f"{raw:.2f}", f"{ours:.2f}", f"{result[ratio]:.2f}")
    Console().print(table)
    if arguments.json is not None:
        report = {
            "python": platform.python_version(),
            "sentencepiece": sentencepiece.__version__,
            "num_sentences": len(texts),
            "results": results,
        }
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
