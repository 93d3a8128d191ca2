"""`evaluate_triplet.py`: the guide's figures, examples, and a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tripletune.cli.adapters import find_adapter
from tripletune.cli.arguments import OneLineParser, add_vote_flags
from tripletune.cli.quiet import quiet_libraries

if TYPE_CHECKING:
    from tripletune.extraction.job_ranks import JobRanks

__all__ = ["evaluate", "evaluate_from_arguments", "extract_in_ranks"]


def evaluate(arguments: Sequence[str]) -> int:
    """`tripletune evaluate`: the flags of `evaluate_triplet.py`."""
    return evaluate_from_arguments(arguments, prog="tripletune evaluate")


def evaluate_from_arguments(argv: Sequence[str] | None, *, prog: str | None = None) -> int:
    """Scores an adapter as the flags say; returns the exit code.

    Args:
        argv: The flags; None for those of the process.
        prog: Name to show in the help.
    """
    parser = OneLineParser(prog=prog, description="TripleTune: 评估")
    parser.add_argument("--adapter", help="训练输出目录 (默认: output/ 下最近一次训练)")
    parser.add_argument("--base_model", help="基础模型 (默认: 适配器中记录的)")
    parser.add_argument(
        "--validation_file", default="data/val_triplet.jsonl", help="验证数据 (任何可识别的格式)"
    )
    parser.add_argument("--output_dir", help="报告写到哪里 (默认: 适配器目录下 evaluation/)")
    parser.add_argument("--batch_size", type=int, help="批次大小 (默认: GPU 128 以内, CPU 16)")
    parser.add_argument("--num_examples", type=int, default=5, help="显示多少个例子 (默认 5)")
    parser.add_argument("--free", action="store_true", help="不约束输出 (默认约束为文本中的片段)")
    add_vote_flags(parser)
    parser.add_argument("--min_confidence", type=float, help="丢弃置信度更低的三元组")
    arguments = parser.parse_args(argv)

    from tripletune.data.readers import load_examples
    from tripletune.evaluation import evaluate, write_report
    from tripletune.extraction.extractor import Extractor
    from tripletune.extraction.job_ranks import joined_ranks
    from tripletune.training.ranks import is_main_process

    examples = load_examples(arguments.validation_file)
    folder = find_adapter(arguments.adapter)
    quiet_libraries()
    if is_main_process():
        print(f"加载 {folder} ...", file=sys.stderr)
    extractor = Extractor.from_pretrained(
        folder,
        base_model=arguments.base_model,
        batch_size=arguments.batch_size,
        constrained=False if arguments.free else None,
        min_confidence=arguments.min_confidence,
        votes=arguments.votes,
        vote_share=arguments.vote_share,
    )
    with joined_ranks() as ranks:
        extractions = extract_in_ranks(ranks, extractor, examples)
    if not ranks.is_first:
        return 0
    evaluation = evaluate(examples, extractions)
    report_dir = Path(arguments.output_dir or folder / "evaluation")
    report_dir.mkdir(parents=True, exist_ok=True)
    _write_predictions(report_dir / "predictions.jsonl", extractions)
    _print_figures(evaluation)
    _print_examples(examples, extractions, arguments.num_examples)
    paths = write_report(evaluation, report_dir)
    print("报告: " + ", ".join(str(path) for path in paths))
    return 0


def extract_in_ranks(ranks: JobRanks, extractor: Any, examples: Sequence[Any]) -> list[Any]:
    """The extraction of each example, on the first process; elsewhere nothing.

    Args:
        ranks: Divide the examples by chunks that do not depend on how many processes there are.
        extractor: An `Extractor`.
        examples: The same on all processes.
    """
    import torch
    from tqdm.auto import tqdm

    from tripletune.extraction.batch_size import choose_chunk_size

    batch_size = extractor.options.batch_size
    size = choose_chunk_size(batch_size, len(examples), on_gpu=torch.cuda.is_available())
    chunks = [examples[start : start + size] for start in range(0, len(examples), size)]
    mine = chunks[ranks.rank :: ranks.size]
    total = sum(map(len, mine))
    with tqdm(total=total, unit="句", desc="评估", disable=not ranks.is_first) as progress:
        found = []
        for chunk in mine:
            found.append([*extractor.iter_extract(chunk, on_text=progress.update)])
            progress.update(sum(map(len, found)) - progress.n)  # blank ones are not told of
    shares = ranks.gather(found)
    if not shares:
        return []
    in_order = (shares[n % ranks.size][n // ranks.size] for n in range(len(chunks)))
    return [extraction for chunk in in_order for extraction in chunk]


def _print_figures(evaluation: Any) -> None:
    strict = evaluation.strict

    def shown(value: float | None) -> str:
        return "无定义" if value is None else f"{value:.4f}"

    print("=" * 40)
    print(f"总样本数: {evaluation.num_texts}")
    print(f"精确率: {shown(strict.precision)}")
    print(f"召回率: {shown(strict.recall)}")
    print(f"F1分数: {shown(strict.f1)}")
    print(f"完全匹配准确率: {shown(evaluation.exact_match)}")
    print(
        f"标注三元组: {strict.num_gold}  预测三元组: {strict.num_predicted}  "
        f"正确: {strict.num_correct}"
    )
    print("=" * 40)


def _print_examples(examples: Sequence[Any], extractions: Sequence[Any], count: int) -> None:
    def listed(triplets: Any) -> str:
        return "; ".join(f"({t.subject}, {t.relation}, {t.object})" for t in triplets) or "无"

    pairs = list(zip(examples, extractions, strict=True))
    wrong = [pair for pair in pairs if set(pair[0].triplets) != set(pair[1].triplets)]
    for title, chosen in (("例子", pairs[:count]), ("有错的例子", wrong[:count])):
        for example, extraction in chosen:
            print(f"[{title}] {example.text}")
            print(f"  标注: {listed(example.triplets)}")
            print(f"  预测: {listed(extraction.triplets)}")


def _write_predictions(path: Path, extractions: Sequence[Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(e.to_json() + "\n" for e in extractions), encoding="utf-8")
    temporary.replace(path)
