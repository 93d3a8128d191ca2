"""`tripletune data`: convert, check, fix, split, augment, schema; `generate` has its own file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tripletune.cli.generate import generate

if TYPE_CHECKING:
    from tripletune.data.check import CheckReport
    from tripletune.data.inspection import Severity
    from tripletune.data.relation_schema import RelationSchema
    from tripletune.schema import Example

__all__ = ["augment", "check", "convert", "data_app", "fix", "schema", "split"]

EXIT_FOUND = 1
EXIT_USER = 2
_MAX_SHOWN = 3

data_app = typer.Typer(
    name="data",
    help="训练数据：转换、检查、修复、划分、扩充、关系模式。",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app.command("generate", help="生成合成的训练与验证数据，三元组已知。")(generate)


class OutputFormat(str, Enum):
    """What `convert` and `fix` write."""

    canonical = "canonical"
    parquet = "parquet"
    instruction = "instruction"
    messages = "messages"
    sharegpt = "sharegpt"


class FailOn(str, Enum):
    """From which severity on a check ends with exit code 1."""

    error = "error"
    warning = "warning"
    info = "info"
    never = "never"


class Contradictory(str, Enum):
    """What becomes of a text that is there again with other triplets."""

    first = "first"
    merge = "merge"
    drop = "drop"


class AbsentItems(str, Enum):
    """What becomes of a triplet whose subject or object is not in the text."""

    keep = "keep"
    drop = "drop"
    nearest = "nearest"


class Mode(str, Enum):
    """How a file is split."""

    random = "random"
    stratified = "stratified"
    entity_disjoint = "entity_disjoint"


FormatOption = Annotated[
    str | None, typer.Option("--format", help="输入格式的名称 (默认: 按内容识别)")
]
OutputFormatOption = Annotated[
    OutputFormat | None,
    typer.Option("--to", help="输出格式 (默认: .parquet 写 Parquet，其余写标准 JSONL)"),
]
NearOption = Annotated[
    float, typer.Option("--near", help="多相似算近似重复 (0 到 1；0: 不查近似重复)")
]


@data_app.command(
    "convert", help="把任何已知格式转换成训练数据；丢弃与改动的记录写在 OUT.problems.jsonl。"
)
def convert(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="任何已知格式的文件或目录")],
    output_path: Annotated[Path, typer.Argument(metavar="OUT", help="写到哪里")],
    input_format: FormatOption = None,
    output_format: OutputFormatOption = None,
    instruction: Annotated[
        str | None, typer.Option(help="instruction、messages、sharegpt 中的指令")
    ] = None,
) -> None:
    """Convert a file of any known format."""
    from tripletune.data.convert import convert_file

    report = convert_file(
        input_path,
        output_path,
        input_format=input_format,
        output_format=None if output_format is None else output_format.value,
        instruction=instruction,
    )
    typer.echo(f"格式: {report.input_format} -> {report.output_format}")
    typer.echo(
        f"样本: {report.num_examples}  三元组: {report.num_triplets}  "
        f"无三元组的样本: {report.num_empty}"
    )
    _print_reasons(report.to_record()["reasons"])
    for name, number in report.tallies.items():
        typer.echo(f"  {name}: {number}")
    if report.problems_path is not None:
        typer.echo(f"明细: {report.problems_path}")
    if not report.num_examples:
        typer.echo(f"{input_path}: 没有一条可用的记录 (no record can be used)", err=True)
        raise typer.Exit(EXIT_USER)


@data_app.command(
    "check", help="检查数据：编码、标注、重复、矛盾、泄漏、长度；发现问题时退出码为 1。"
)
def check(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="训练文件在前，验证文件在后")
    ],
    input_format: FormatOption = None,
    schema_path: Annotated[
        Path | None, typer.Option("--schema", help="关系模式 (schema.json 或 DuIE 形式)")
    ] = None,
    near: NearOption = 0.8,
    model: Annotated[
        str | None, typer.Option(help="用哪个模型的分词器统计长度 (默认: 只统计字数)")
    ] = None,
    max_source_length: Annotated[int, typer.Option(min=1, help="提示最长多少token")] = 512,
    max_target_length: Annotated[int, typer.Option(min=1, help="答案最长多少token")] = 256,
    html: Annotated[Path | None, typer.Option(help="把带图的报告写成网页")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="把报告写成JSON")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="从哪一级起以退出码 1 结束")] = FailOn.warning,
) -> None:
    """Check files; exit code 1 when something is found."""
    from tripletune.data.check import CheckSettings, check_files
    from tripletune.data.output_path import check_output_path

    for output in (html, json_path):
        check_output_path(output, paths)
    settings = CheckSettings(
        input_format=input_format,
        schema=_load_schema(schema_path),
        near_threshold=near or None,
        count_tokens=None if model is None else _build_counter(model),
        max_prompt_tokens=max_source_length,
        max_target_tokens=max_target_length,
    )
    report = check_files(paths, settings)
    _print_report(report)
    if html is not None:
        from tripletune.data.report_page import write_page

        write_page(report, html)
        typer.echo(f"网页: {html}")
    if json_path is not None:
        _write_json(json_path, report.to_record())
        typer.echo(f"JSON: {json_path}")
    if _has_failed(report, fail_on):
        raise typer.Exit(EXIT_FOUND)


@data_app.command(
    "fix", help="去掉泄漏、重复与坏字符，写成新文件；每处改动写在 OUT.problems.jsonl。"
)
def fix(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="训练文件 (不会被改动)")],
    output_path: Annotated[Path, typer.Argument(metavar="OUT", help="修复后的文件")],
    against: Annotated[
        list[Path] | None, typer.Option(help="验证或测试文件；与其相同的文本从训练中去掉")
    ] = None,
    input_format: FormatOption = None,
    output_format: OutputFormatOption = None,
    near: NearOption = 0.8,
    contradictory: Annotated[
        Contradictory, typer.Option(help="同一文本标注不同: 留第一个、合并、全去掉")
    ] = Contradictory.first,
    absent_items: Annotated[
        AbsentItems, typer.Option(help="主客体不在文本中: 保留、去掉、换成最近的片段")
    ] = AbsentItems.keep,
    schema_path: Annotated[
        Path | None, typer.Option("--schema", help="按关系模式纠正方向反了的三元组")
    ] = None,
) -> None:
    """Write a mended copy of a training file."""
    from tripletune.data.fix import FixSettings, fix_file

    settings = FixSettings(
        input_format=input_format,
        near_threshold=near or None,
        contradictory=contradictory.value,
        absent_items=absent_items.value,
        schema=_load_schema(schema_path),
    )
    report = fix_file(
        input_path,
        output_path,
        against=against or (),
        settings=settings,
        output_format=None if output_format is None else output_format.value,
    )
    typer.echo(f"读取: {report.num_read}  写出: {report.num_written}")
    _print_reasons(report.to_record()["reasons"])
    if report.problems_path is not None:
        typer.echo(f"明细: {report.problems_path}")


@data_app.command("split", help="划分训练、验证与测试集；相同与近似的文本总在同一部分。")
def split(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="要划分的文件 (不会被改动)")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="写到哪个目录")],
    shares: Annotated[
        str, typer.Option(help="各部分的名称与份额，第一个是训练集")
    ] = "train=0.8,validation=0.1,test=0.1",
    mode: Annotated[Mode, typer.Option(help="随机、按关系分层、实体不相交")] = Mode.stratified,
    seed: Annotated[int, typer.Option(help="随机种子")] = 42,
    near: NearOption = 0.8,
    input_format: FormatOption = None,
) -> None:
    """Split a file into parts that do not leak."""
    from tripletune.data.split import split_file

    report = split_file(
        input_path,
        output_dir,
        shares=_parse_shares(shares),
        mode=mode.value,
        seed=seed,
        near_threshold=near or None,
        input_format=input_format,
    )
    for name, number in report.counts.items():
        typer.echo(f"{name}: {number}  {report.paths[name]}")


@data_app.command("augment", help="扩充训练数据：句子的副本里，实体换成数据中同类的其他实体。")
def augment(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="训练文件 (不会被改动)")],
    output_path: Annotated[Path, typer.Argument(metavar="OUT", help="原句与副本写到哪里")],
    copies: Annotated[int, typer.Option(min=1, help="每条最多几份副本")] = 1,
    share: Annotated[float, typer.Option(help="换掉多大份额的实体")] = 0.5,
    seed: Annotated[int, typer.Option(help="随机种子")] = 42,
    input_format: FormatOption = None,
    output_format: OutputFormatOption = None,
) -> None:
    """Write a training file with copies whose entities are swapped."""
    from tripletune.data.augment import augment_file

    num_read, num_copies = augment_file(
        input_path,
        output_path,
        copies=copies,
        share=share,
        seed=seed,
        input_format=input_format,
        output_format=None if output_format is None else output_format.value,
    )
    typer.echo(f"读取: {num_read}  副本: {num_copies}  {output_path}")


@data_app.command(
    "schema",
    help="从数据中学出关系模式，或合并已有的模式，写成 schema.json；有可疑之处时退出码为 1。",
)
def schema(
    paths: Annotated[list[Path], typer.Argument(metavar="FILES", help="数据文件或关系模式文件")],
    output: Annotated[Path, typer.Option(help="写到哪里")] = Path("schema.json"),
    input_format: FormatOption = None,
    min_count: Annotated[int, typer.Option(min=1, help="少于多少个三元组的关系不要")] = 1,
    min_share: Annotated[float, typer.Option(min=0, max=1, help="占比低于多少的类型对不要")] = 0.0,
) -> None:
    """Learn or merge a relation schema."""
    from tripletune.data.output_path import check_output_path
    from tripletune.data.readers import read_examples
    from tripletune.data.relation_schema import learn_schema, merge_schemas, save_schema
    from tripletune.data.schema_files import is_schema_file, load_schema, validate_schema

    found = []
    for path in paths:
        if input_format is None and is_schema_file(path):
            found.append(load_schema(path))
        else:
            check_output_path(output, [path])
            examples = read_examples(path, format=input_format)
            found.append(learn_schema(examples, min_count=min_count, min_share=min_share))
    merged = merge_schemas(found)
    save_schema(merged, output)
    typer.echo(
        f"关系: {len(merged)}  主体类型: {len(merged.subject_types)}  "
        f"客体类型: {len(merged.object_types)}  {output}"
    )
    complaints = validate_schema(merged)
    for complaint in complaints:
        typer.echo(f"  {complaint}")
    if complaints:
        raise typer.Exit(EXIT_FOUND)


def _load_schema(path: Path | None) -> RelationSchema | None:
    if path is None:
        return None
    from tripletune.data.schema_files import load_schema

    return load_schema(path)


def _build_counter(model: str) -> Callable[[Example], tuple[int, int]]:
    """Counts the tokens of prompt and target as training does."""
    from tripletune.data.linearize import arrange_triplets, render_target
    from tripletune.data.prompts import encode_answer, encode_prompt, render_query
    from tripletune.models.loading import load_tokenizer

    tokenizer = load_tokenizer(model)

    def count(example: Example) -> tuple[int, int]:
        prompt = encode_prompt(tokenizer, render_query(example.text))
        target = render_target(arrange_triplets(example.text, example.triplets))
        return len(prompt), len(encode_answer(tokenizer, target))

    return count


def _parse_shares(source: str) -> dict[str, float]:
    from tripletune.errors import ConfigError

    shares: dict[str, float] = {}
    for part in source.split(","):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise ConfigError(
                f"shares: {part!r} is not 'name=number', as in train=0.8,validation=0.2"
            ) from None
        if not name.strip() or not name.strip().isidentifier():
            raise ConfigError(f"shares: {name!r} is no name for a file; use letters and _")
    return shares


def _print_reasons(reasons: Mapping[str, Mapping[str, int]]) -> None:
    titles = {"dropped record": "丢弃的记录", "dropped triplet": "丢弃的三元组", "changed": "改动"}
    for action, counts in reasons.items():
        listed = ", ".join(f"{reason} {number}" for reason, number in counts.items())
        typer.echo(f"{titles[action]}: {sum(counts.values())} ({listed})")


def _print_report(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tripletune.data.inspection import TITLES

    console = Console()
    files = Table(title="文件")
    for title in ("文件", "格式", "样本", "三元组", "关系", "无三元组"):
        justify: Literal["left", "right"] = "left" if title in {"文件", "格式"} else "right"
        files.add_column(title, justify=justify, overflow="fold")
    for name, file in zip(report.formats, report.files, strict=True):
        share = file.num_empty / max(1, file.num_examples)
        row = (file.num_examples, file.num_triplets, len(file.relations))
        files.add_row(Text(file.path), name, *map(str, row), f"{share:.1%}")
    console.print(files)
    console.print(
        f"错误 {report.count('error')}  警告 {report.count('warning')}  提示 {report.count('info')}"
    )
    if not report.counts:
        return
    found = Table(title="发现")
    for title in ("级别", "种类", "次数", "例子"):
        found.add_column(title, justify="right" if title == "次数" else "left", overflow="fold")
    for severity, style in (("error", "red"), ("warning", "yellow"), ("info", "dim")):
        for kind, number in sorted(report.counts.items()):
            shown = [item for item in report.findings if item.kind == kind]
            if not shown or shown[0].severity != severity:
                continue
            places = "\n".join(
                f"{item.path}:{item.line} {item.message}"
                if item.line
                else f"{item.path} {item.message}".strip()
                for item in shown[:_MAX_SHOWN]
            )
            found.add_row(
                Text(severity, style), Text(f"{TITLES[kind]}\n{kind}"), str(number), Text(places)
            )
    console.print(found)


def _has_failed(report: CheckReport, fail_on: FailOn) -> bool:
    levels: tuple[Severity, ...] = ("error", "warning", "info")
    if fail_on is FailOn.never:
        return False
    return any(report.count(level) for level in levels[: levels.index(fail_on.value) + 1])


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    from tripletune.data.writers import open_output

    with open_output(path) as file:
        file.write(json.dumps(record, ensure_ascii=False, indent=2) + "\n")
