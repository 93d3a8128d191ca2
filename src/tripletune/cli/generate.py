"""`tripletune data generate`: synthetic training and validation data of any size and schema."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tripletune.data.generator.output import FileSummary

__all__ = ["generate"]

_SHARES = {
    "pair_overlap": "同一对实体有多种关系 (EPO)",
    "entity_overlap": "三元组共享实体 (SEO)",
    "nested": "客体又是另一三元组的主体",
    "object_first": "客体先于主体出现",
    "pronoun": "含代词",
    "distractor": "含无关实体",
}


class Level(str, Enum):
    """How hard the sentences are."""

    easy = "easy"
    medium = "medium"
    hard = "hard"


def generate(
    output_dir: Annotated[Path, typer.Option(help="输出目录")],
    num_train: Annotated[int, typer.Option(min=1, help="训练集条数")] = 903,
    num_validation: Annotated[
        int, typer.Option(min=1, help="验证集条数 (实体不在训练集中出现)")
    ] = 101,
    num_unseen_phrasing: Annotated[
        int, typer.Option(min=0, help="另写一个验证集的条数, 其说法也不在训练集中出现")
    ] = 0,
    seed: Annotated[int, typer.Option(help="随机种子")] = 42,
    difficulty: Annotated[Level, typer.Option(help="难度")] = Level.medium,
    max_triplets: Annotated[
        int | None, typer.Option(min=0, max=8, help="一句最多几个三元组 (默认: 由难度决定)")
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="自定义实体类型与说法 (JSONL, 每行一个类型或关系)")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="事实表 (JSONL, 每行 subject, relation, object)")
    ] = None,
    schema: Annotated[Path | None, typer.Option(help="关系模式 (schema.json)")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="进程数 (默认: 条数多时用全部CPU核)")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="把难度报告写成JSON")] = None,
) -> None:
    """Generate training and validation files."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from tripletune.data.generator.dataset import DatasetPlan, write_dataset
    from tripletune.data.generator.domain_files import load_domain
    from tripletune.data.generator.sentences import DIFFICULTIES, with_max_triplets

    settings = DIFFICULTIES[difficulty.value]
    if max_triplets is not None:
        settings = with_max_triplets(settings, max_triplets)
    given = templates is not None or facts is not None or schema is not None
    plan = DatasetPlan(
        num_train,
        num_validation,
        num_unseen_phrasing,
        seed=seed,
        difficulty=settings,
        domain=load_domain(templates, facts, schema) if given else None,
    )
    if plan.domain is not None and plan.domain.named_by_kind:
        named = ", ".join(f"{name} ({kind})" for name, kind in plan.domain.named_by_kind)
        typer.echo(f"没有给出名称的类型及所用的名称: {named}；可用 --templates 给出 names")
    num_processes = processes or (os.cpu_count() or 1 if num_train > 50_000 else 1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        files = write_dataset(plan, output_dir, num_processes=num_processes, progress=show)
    for file in files:
        _print_summary(file)
    sample = files[0].sample
    typer.echo(f"示例: {sample.text}")
    for triplet in sample.triplets:
        typer.echo(f"  ({triplet.subject}, {triplet.relation}, {triplet.object})")
    if json_path is not None:
        _write_json(json_path, files)


def _print_summary(file: FileSummary) -> None:
    record = file.report.to_record()
    typer.echo(
        f"{file.path}: {file.num_examples} 条, {file.num_triplets} 个三元组, "
        f"{file.num_relations} 种关系, 平均 {file.mean_characters:.0f} 字"
    )
    counts = record["by_num_triplets"].items()
    typer.echo("  每句三元组数: " + ", ".join(f"{n} 个 {count} 句" for n, count in counts))
    shares = record["shares"]
    typer.echo("  " + ", ".join(f"{text} {shares[name]:.1%}" for name, text in _SHARES.items()))


def _write_json(path: Path, files: list[FileSummary]) -> None:
    from tripletune.errors import OutputError

    record = {file.path.name: file.report.to_record() for file in files}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    typer.echo(f"难度报告: {path}")
