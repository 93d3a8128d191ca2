"""`tripletune score` and `tripletune compare`: scoring without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tripletune.evaluation import Comparison, Evaluation, Settings

__all__ = ["compare", "register", "score"]

_UNDEFINED = "未定义"
_PIPE_WIDTH = 120
_MAX_RELATIONS = 10

JsonOption = Annotated[Path | None, typer.Option("--json", help="把全部结果写成 JSON")]
AliasOption = Annotated[
    Path | None, typer.Option("--alias", help="DuIE 别名文件：每行一个词及其别名，以制表符分隔")
]
SchemaOption = Annotated[
    Path | None, typer.Option("--schema", help="关系模式文件；给出时检查关系是否在模式中")
]
SeedOption = Annotated[int, typer.Option("--seed", help="重采样的随机种子")]
ResamplesOption = Annotated[int, typer.Option("--resamples", help="置信区间的重采样次数，至少 100")]


def register(app: typer.Typer) -> None:
    """Add `score` and `compare` to an application."""
    app.command("score", help="给预测文件打分：各匹配规则的精确率、召回率、F1，与错误类型。")(score)
    app.command("compare", help="比较两个预测文件：F1 之差 (B 减 A)、置信区间与 p 值。")(compare)


def score(
    gold: Annotated[Path, typer.Argument(help="标注文件 (标准 JSONL)")],
    pred: Annotated[Path, typer.Argument(help="预测文件 (标准 JSONL)")],
    json_out: JsonOption = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="报告：.html、.md 或 .json 文件，或一个目录 (三种都写)"),
    ] = None,
    alias: AliasOption = None,
    schema: SchemaOption = None,
    seed: SeedOption = 42,
    resamples: ResamplesOption = 2000,
) -> None:
    """Score a prediction file: precision, recall and F1 by rule, and error classes."""
    from rich.console import Console

    from tripletune.data.output_path import check_output_path
    from tripletune.evaluation import evaluate_files, write_report

    for output in (json_out, report):
        check_output_path(output, [gold, pred])
    settings = _make_settings(alias, schema, seed=seed, resamples=resamples)
    evaluation = evaluate_files(gold, pred, settings=settings)
    console = _make_console(Console)
    _print_scores(console, evaluation)
    _print_errors(console, evaluation)
    _print_pairing(console, evaluation)
    if json_out is not None:
        _write_json(json_out, evaluation.to_dict())
        console.print(f"JSON: {json_out}", soft_wrap=True, highlight=False, markup=False)
    if report is not None:
        for path in write_report(evaluation, report, title=f"{pred.name} 对照 {gold.name}"):
            console.print(f"报告: {path}", soft_wrap=True, highlight=False, markup=False)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="甲的预测文件 (标准 JSONL)")],
    second: Annotated[Path, typer.Argument(metavar="B", help="乙的预测文件 (标准 JSONL)")],
    gold: Annotated[Path, typer.Option("--gold", help="标注文件 (标准 JSONL)")],
    json_out: JsonOption = None,
    alias: AliasOption = None,
    schema: SchemaOption = None,
    seed: SeedOption = 42,
    resamples: ResamplesOption = 2000,
) -> None:
    """Compare two prediction files: difference in F1, interval and p-value."""
    from rich.console import Console

    from tripletune.data.output_path import check_output_path
    from tripletune.evaluation import compare_files

    check_output_path(json_out, [first, second, gold])
    settings = _make_settings(alias, schema, seed=seed, resamples=resamples)
    comparison = compare_files(first, second, gold_path=gold, settings=settings)
    console = _make_console(Console)
    _print_comparison(console, comparison, first=first, second=second)
    for name, evaluation in (("A", comparison.first), ("B", comparison.second)):
        _print_pairing(console, evaluation, prefix=f"{name}: ")
    if json_out is not None:
        _write_json(json_out, comparison.to_dict())
        console.print(f"JSON: {json_out}", soft_wrap=True, highlight=False, markup=False)


def _make_settings(
    alias: Path | None, schema: Path | None, *, seed: int, resamples: int
) -> Settings:
    from tripletune.evaluation import Settings, read_aliases

    relations = None
    if schema is not None:
        from tripletune.data.schema_files import load_schema

        relations = frozenset(load_schema(schema).names)
    return Settings(
        aliases=None if alias is None else read_aliases(alias),
        schema=relations,
        seed=seed,
        num_resamples=resamples,
    )


def _make_console(console_class: type[Console]) -> Console:
    """A console that is wide enough for the tables where there is no terminal."""
    console = console_class()
    return console if console.is_terminal else console_class(width=_PIPE_WIDTH)


def _print_scores(console: Console, evaluation: Evaluation) -> None:
    from tripletune.evaluation.labels import RULE_LABELS

    columns = ("精确率", "召回率", "F1", "F1 95% 区间", "标注", "预测", "正确")
    rows = []
    for rule, counts in evaluation.scores.items():
        interval = evaluation.intervals[rule].f1
        rows.append(
            (
                f"{RULE_LABELS[rule].chinese} {rule}",
                _show(counts.precision),
                _show(counts.recall),
                _show(counts.f1),
                "" if interval is None else f"{interval.low:.4f}–{interval.high:.4f}",
                str(counts.num_gold),
                str(counts.num_predicted),
                str(counts.num_correct),
            )
        )
    _print_table(console, ("规则", *columns), rows)
    macro = evaluation.macro
    console.print(
        f"文本 {evaluation.num_texts}  完全匹配 {_show(evaluation.exact_match)}  "
        f"宏平均 F1 {_show(macro.f1)} ({macro.num_relations} 个关系)",
        highlight=False,
    )


def _print_errors(console: Console, evaluation: Evaluation) -> None:
    from tripletune.evaluation.labels import ERROR_LABELS

    errors = evaluation.errors
    rows = [
        (
            f"{label.chinese} {label.english}",
            str(errors.num_wrong[name]),
            str(errors.num_missed[name]),
        )
        for name, label in ERROR_LABELS.items()
        if errors.num_wrong[name] or errors.num_missed[name]
    ]
    if rows:
        _print_table(console, ("错误类型", "错误的预测", "因此漏抽的标注"), rows)


def _print_pairing(console: Console, evaluation: Evaluation, prefix: str = "") -> None:
    pairing = evaluation.pairing
    notes = (
        (pairing.only_gold, "条标注没有对应的预测，按预测为空计", evaluation.missing_texts),
        (pairing.only_predicted, "条预测没有对应的标注，按标注为空计", evaluation.extra_texts),
        (pairing.differing_texts, "条 id 相同而文本不同，以标注的文本为准", ()),
    )
    for rows, message, texts in notes:
        if rows:
            example = f"，例如: {texts[0][:40]}" if texts else ""
            console.print(
                f"注意: {prefix}{len(rows)} {message}{example}",
                style="yellow",
                highlight=False,
                markup=False,
            )


def _print_comparison(
    console: Console, comparison: Comparison, *, first: Path, second: Path
) -> None:
    from tripletune.evaluation.labels import RULE_LABELS

    console.print(f"A: {first}\nB: {second}", soft_wrap=True, highlight=False, markup=False)
    rows = []
    for rule, difference in comparison.differences.items():
        interval = difference.interval
        rows.append(
            (
                f"{RULE_LABELS[rule].chinese} {rule}",
                _show(comparison.first.scores[rule].f1),
                _show(comparison.second.scores[rule].f1),
                _UNDEFINED if difference.value is None else f"{difference.value:+.4f}",
                "" if interval is None else f"{interval.low:+.4f} – {interval.high:+.4f}",
                _UNDEFINED if difference.p_value is None else f"{difference.p_value:.4f}",
                "是" if difference.is_significant else "否",
            )
        )
    _print_table(
        console, ("规则", "A 的 F1", "B 的 F1", "B − A", "95% 区间", "p 值", "p < 0.05"), rows
    )
    console.print(
        f"文本 {comparison.num_texts}: B 更好 {comparison.num_better}，"
        f"B 更差 {comparison.num_worse}",
        highlight=False,
    )
    changed = comparison.find_changed_relations()[:_MAX_RELATIONS]
    if changed:
        _print_table(
            console,
            ("变化最大的关系", "A 的 F1", "B 的 F1", "标注"),
            [(name, _show(a.f1), _show(b.f1), str(a.num_gold)) for name, a, b in changed],
        )


def _print_table(
    console: Console, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _show(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.4f}"


def _write_json(path: Path, record: dict[str, Any]) -> None:
    from tripletune.errors import OutputError

    content = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(
            f"--json {str(path)!r} cannot be written: {error.strerror}; choose another path"
        ) from error
