"""`tripletune runs`: lists the runs in output folders, and shows in what they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tripletune.errors import DataError

__all__ = ["runs"]

_STATUS = {
    "running": "运行中",
    "finished": "完成",
    "interrupted": "中断",
    "failed": "失败",
}
_COLUMNS = ("目录", "状态", "开始 (UTC)", "模型", "步数", "F1", "loss", "最佳F1", "用时")
# What differs between any two runs and says nothing about them.
_LONGEST_SECONDS = 10**9
_NOT_COMPARED = ("started", "ended", "command", "folder", "earlier_starts", "format", "path")


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="输出目录，或其上级目录 (默认 output)")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="列出这些运行的设置、数据、版本、结果的不同之处")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="输出 JSON：每个运行一条完整记录")
    ] = False,
) -> int:
    """Prints the runs, newest first. Returns 1 when a record could not be read, else 0."""
    paths = find_run_folders(folders or [Path("output")])
    records, damaged = read_records(paths)
    if as_json:
        print(
            json.dumps(
                [{"output_dir": str(p), **r} for p, r in records], ensure_ascii=False, indent=1
            )
        )
    elif compare:
        _print_table(
            ("字段", *(str(p) for p, _ in records)), compare_records([r for _, r in records])
        )
    else:
        _print_table(_COLUMNS, [summarise(path, record) for path, record in records])
    for message in damaged:
        typer.echo(f"无法读取 (unreadable): {message}", err=True)
    return 1 if damaged else 0


def find_run_folders(places: Sequence[Path]) -> list[Path]:
    """Folders with a run record: the places themselves, and those directly below them.

    Raises:
        DataError: there is none.
    """
    found: dict[Path, None] = {}
    for place in places:
        for folder in (place, *sorted(p for p in place.glob("*") if p.is_dir())):
            if (folder / "run.json").is_file():
                found[folder] = None
    if not found:
        shown = ", ".join(map(str, places))
        raise DataError(
            f"runs: no run.json in {shown} or a folder below; train first, or give output folders"
        )
    return list(found)


def read_records(folders: Sequence[Path]) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Each folder with its record, last started first, and a message for each unreadable one."""
    from tripletune.training.run_record import RECORD_FILE, read_run_record

    records, damaged = [], []
    for folder in folders:
        try:
            records.append((folder, read_run_record(folder / RECORD_FILE)))
        except DataError as error:
            damaged.append(str(error))
    records.sort(key=lambda item: str(item[1].get("started")), reverse=True)
    return records, damaged


def summarise(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """One row of the list: folder, status, start, model, steps, F1, loss, best F1, duration."""
    result = record["result"]
    metrics = result.get("metrics")
    if not isinstance(metrics, dict):
        metrics = {}
    status = _STATUS.get(str(record.get("status")), "?")
    if record.get("status") == "running" and not _is_running(folder):
        status = "被终止"
    return [
        str(folder),
        status,
        str(record.get("started", ""))[:16].replace("T", " "),
        str(record["settings"].get("model_name", "?")),
        _show(result.get("steps")),
        _show(metrics.get("eval_f1")),
        _show(metrics.get("eval_loss")),
        _show(result.get("best_metric")),
        _show_seconds(result.get("train_seconds")),
    ]


def compare_records(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each field that is not the same in all records: its name, then each value."""
    flat = [dict(_flatten(record)) for record in records]
    names = {name: None for one in flat for name in one}
    rows = []
    for name in names:
        values = [one.get(name) for one in flat]
        if any(value != values[0] for value in values):
            rows.append([name, *(_show(value) for value in values)])
    return rows


def _flatten(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in record.items():
        if name in _NOT_COMPARED:
            continue
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs


def _is_running(folder: Path) -> bool:
    from tripletune.errors import OutputError
    from tripletune.training.lock import check_unlocked

    try:
        check_unlocked(folder)
    except (OutputError, OSError):
        return True
    return False


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # SHA-256 sums: the beginning tells them apart.
    return text[:12] if len(text) == 64 and text.isalnum() else text


def _show_seconds(value: Any) -> str:
    if not isinstance(value, (int, float)) or not 0 <= value < _LONGEST_SECONDS:
        return "-"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        # Text, because folder names may look like markup.
        table.add_row(*(Text(_plain(cell)) for cell in row))
    console = Console()
    # Not cut to 80 columns when it goes to a file.
    (console if console.is_terminal else Console(width=300)).print(table)


def _plain(text: str) -> str:
    """Without control characters, which a stranger's record could send to the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
