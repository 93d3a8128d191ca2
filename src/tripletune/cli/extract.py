"""`tripletune extract` and `tripletune calibrate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tripletune.cli.adapters import find_adapter
from tripletune.cli.quiet import quiet_libraries
from tripletune.errors import ConfigError
from tripletune.extraction.votes import DEFAULT_SHARE

if TYPE_CHECKING:
    from tripletune.extraction.extractor import Extractor
    from tripletune.extraction.job_input import InputFormat

__all__ = ["CALIBRATE_HELP", "EXTRACT_HELP", "calibrate", "extract"]

EXTRACT_HELP = "从文件中的每条文本抽取三元组，边算边写，可中断后继续。"
CALIBRATE_HELP = "在验证数据上校准置信度，写入适配器目录的 calibration.json。"


class InputKind(Enum):
    """Formats that `--input_format` names."""

    jsonl = "jsonl"
    txt = "txt"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"


class Weights(str, Enum):
    """How the base model's weights are held."""

    auto = "auto"
    bf16 = "bf16"
    nf4 = "nf4"


AdapterOption = Annotated[
    str | None, typer.Option("--adapter", help="训练输出目录 (默认: output/ 下最近一次训练)")
]
BaseModelOption = Annotated[
    str | None, typer.Option("--base_model", help="基础模型 (默认: 适配器中记录的)")
]
VotesOption = Annotated[
    int,
    typer.Option(
        "--votes", min=1, help="每段抽取几次，保留多数同意的三元组 (默认 1: 最可能的输出)"
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch_size", min=1, help="一起计算的文本数 (默认: GPU 128, 显存不够则更少; CPU 16)"
    ),
]


@dataclass(frozen=True)
class AdapterFactory:
    """Makes the extractor of a worker on its GPU; picklable."""

    adapter: str
    base_model: str | None
    quantize: bool | None
    num_workers: int
    options: dict[str, Any]

    def __call__(self, worker: int) -> Extractor:
        """The extractor of one worker."""
        import torch

        from tripletune.extraction.extractor import Extractor

        quiet_libraries()
        device = None
        if self.num_workers > 1 and torch.cuda.is_available():
            num_gpus = torch.cuda.device_count()
            device = f"cuda:{worker % num_gpus}"
            torch.cuda.set_device(device)  # else each worker takes memory of the first one, too
            num_sharing = len(range(worker % num_gpus, self.num_workers, num_gpus))
            if num_sharing > 1:
                torch.cuda.set_per_process_memory_fraction(1 / num_sharing, device)
        return Extractor.from_pretrained(
            self.adapter,
            base_model=self.base_model,
            quantize=self.quantize,
            device=device,
            **self.options,
        )


def extract(
    input_path: Annotated[
        str, typer.Option("--input", help="输入: JSONL、TXT、CSV、TSV、Parquet；- 为标准输入")
    ],
    output_path: Annotated[str, typer.Option("--output", help="输出: JSONL，或 .parquet")],
    adapter: AdapterOption = None,
    base_model: BaseModelOption = None,
    schema: Annotated[
        str | None, typer.Option("--schema", help="关系文件 (默认: 适配器中的 schema.json)")
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="不约束输出，宽松解析")] = False,
    min_confidence: Annotated[
        float | None, typer.Option("--min_confidence", min=0, max=1, help="丢弃置信度更低的三元组")
    ] = None,
    votes: VotesOption = 1,
    vote_share: Annotated[
        float, typer.Option("--vote_share", min=0, max=1, help="多大份额的抽取同意才保留")
    ] = DEFAULT_SHARE,
    batch_size: BatchOption = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max_new_tokens", min=1, help="每段最多生成的词元数 (默认: 按原文长度)"),
    ] = None,
    window_chars: Annotated[
        int | None,
        typer.Option("--window_chars", min=8, help="长文档每段的最多字符数 (默认: 按训练文本)"),
    ] = None,
    weights: Annotated[
        Weights, typer.Option("--weights", help="权重精度 (auto: 按显存选择)")
    ] = Weights.auto,
    workers: Annotated[int, typer.Option("--workers", min=1, help="进程数，每个用一块GPU")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="接着上次中断的输出继续")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="替换已有的输出文件")] = False,
    input_format: Annotated[
        InputKind | None, typer.Option("--input_format", help="输入格式 (默认: 按扩展名)")
    ] = None,
    text_field: Annotated[
        str | None, typer.Option("--text_field", help="文本所在的字段 (默认: text、文本 等)")
    ] = None,
) -> None:
    """Extracts from every record of a file; see `EXTRACT_HELP`."""
    import torch

    from tripletune.extraction.batch_size import choose_batch_size, choose_chunk_size
    from tripletune.extraction.job_input import count_records
    from tripletune.extraction.jobs import run_job
    from tripletune.training.ranks import is_main_process

    folder = find_adapter(adapter)
    relations = _load_relations(schema, folder, free=free)
    on_gpu = torch.cuda.is_available()
    if workers > 1 and not on_gpu:
        _warn_of_contention(workers, torch.get_num_threads())
    if batch_size is None:
        batch_size = choose_batch_size(on_gpu=on_gpu)
    options: dict[str, Any] = {
        "relations": relations,
        "constrained": not free,
        "min_confidence": min_confidence,
        "votes": votes,
        "vote_share": vote_share,
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "window_chars": window_chars,
    }
    quantize = {Weights.auto: None, Weights.bf16: False, Weights.nf4: True}[weights]
    source = None if input_path == "-" else Path(input_path)
    kind: InputFormat | None = None
    if input_format is not None:
        kind = input_format.value
    settings = {
        **{name: value for name, value in options.items() if name != "relations"},
        "adapter": str(folder.resolve()),
        "base_model": base_model,
        "weights": weights.value,
        "relations": None if relations is None else [relation.name for relation in relations],
    }
    total = count_records(source, input_format=kind)
    with _progress(total) as bar:
        report = run_job(
            AdapterFactory(str(folder), base_model, quantize, workers, options),
            input_path=source,
            output_path=Path(output_path),
            settings=settings,
            input_format=kind,
            text_field=text_field,
            resume=resume,
            overwrite=overwrite,
            chunk_size=choose_chunk_size(
                batch_size, total, bytes_per_record=_find_mean_bytes(source, total), on_gpu=on_gpu
            ),
            num_workers=workers,
            on_progress=bar.note_written,
            on_text=bar.note_done,
        )
    if not is_main_process():
        return
    print(
        f"{report.num_records} 条记录写入 {output_path} (本次 "
        f"{report.num_records - report.num_resumed} 条，{report.num_triplets} 个三元组，"
        f"{report.num_bad} 条无法使用)",
        file=sys.stderr,
    )


def calibrate(
    adapter: AdapterOption = None,
    validation_file: Annotated[
        str, typer.Option("--validation_file", help="带标注的验证数据")
    ] = "data/val_triplet.jsonl",
    base_model: BaseModelOption = None,
    schema: Annotated[str | None, typer.Option("--schema", help="关系文件")] = None,
    free: Annotated[bool, typer.Option("--free", help="校准不约束的输出")] = False,
    votes: VotesOption = 1,
    batch_size: BatchOption = None,
) -> None:
    """Calibrates confidence on validation data; see `CALIBRATE_HELP`."""
    from tripletune.data.readers import load_examples
    from tripletune.evaluation.calibration import compute_calibration
    from tripletune.extraction.calibration import (
        fit_calibrator,
        judge_confidences,
        save_calibrator,
    )

    folder = find_adapter(adapter)
    examples = load_examples(validation_file)
    options = {
        "relations": _load_relations(schema, folder, free=free),
        "constrained": not free,
        "batch_size": batch_size,
        "votes": votes,
        "vote_share": 0.0,
        "calibrator": None,
    }
    extractor = AdapterFactory(str(folder), base_model, None, 1, options)(0)
    raw, is_correct, num_gold = judge_confidences(examples, extractor.iter_extract(examples))
    calibrator = fit_calibrator(raw, is_correct, votes=votes)
    path = save_calibrator(calibrator, folder)
    print(f"校准方法: {calibrator.method} ({calibrator.num_triplets} 个三元组)")
    print(f"期望校准误差: {calibrator.error_before:.4f} -> {calibrator.error_after:.4f}")
    measured = compute_calibration(calibrator.apply_all(raw), is_correct, num_gold=num_gold)
    for point in measured.thresholds[::2] if measured is not None else ():
        counts = point.counts
        shown = [
            "无定义" if value is None else f"{value:.4f}"
            for value in (counts.precision, counts.recall)
        ]
        print(f"置信度 >= {point.threshold:.2f}: 精确率 {shown[0]}  召回率 {shown[1]}")
    if measured is not None and measured.best.counts.f1 is not None:
        best = measured.best
        print(f"F1 最高: --min_confidence {best.threshold:.2f} (F1 {best.counts.f1:.4f})")
    print(f"写入 {path}")


def _load_relations(schema: str | None, folder: Path, *, free: bool) -> Any:
    from tripletune.data.schema_files import load_schema

    if schema is not None:
        return load_schema(schema)
    saved = folder / "schema.json"
    if saved.is_file():
        return load_schema(saved)
    if free:
        return None
    raise ConfigError(
        f"schema: {str(folder)!r} has no schema.json, so the relations are not known; name a file "
        "(--schema schema.json), or extract without constraint (--free)"
    )


def _warn_of_contention(workers: int, num_threads: int) -> None:
    """More threads than processors wait for each other: two processes were slower than one."""
    from tripletune.models.processors import count_processors

    num_processors = count_processors()
    if workers * num_threads > num_processors:
        print(
            f"注意: 没有 GPU，{workers} 个进程各用 {num_threads} 个线程，争用 {num_processors} 个"
            f"处理器；设 OMP_NUM_THREADS={max(1, num_processors // workers)} 会快得多 "
            "(置信度的末位随线程数而变，续作时须用同样的值)",
            file=sys.stderr,
        )


def _find_mean_bytes(source: Path | None, num_records: int | None) -> float:
    """Of a record as it lies in the file; 0 where that is not known."""
    return source.stat().st_size / num_records if source is not None and num_records else 0.0


class _Bar:
    """Shows records as they are done, and triplets as they are written."""

    def __init__(self, progress: Any, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("extract", total=total, rate="", triplets=0)
        self._num_triplets = 0
        self._num_ahead = 0
        """Records that are done and not yet written."""

    def note_done(self) -> None:
        """Of a record that is worked on."""
        self._num_ahead += 1
        self._advance(1)

    def note_written(self, num_records: int, num_triplets: int) -> None:
        """Of a chunk, whose records are new where another process has done them."""
        self._num_triplets += num_triplets
        num_new = max(0, num_records - self._num_ahead)
        self._num_ahead -= num_records - num_new
        self._advance(num_new)

    def _advance(self, num_records: int) -> None:
        self._progress.advance(self._task, num_records)
        task = self._progress.tasks[0]
        speed = task.finished_speed or task.speed
        rate = "" if speed is None else f"{speed:.1f} 条/秒"
        self._progress.update(self._task, rate=rate, triplets=self._num_triplets)


@contextmanager
def _progress(total: int | None) -> Iterator[_Bar]:
    """A bar with records a second and the time that is left, on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from tripletune.training.ranks import is_main_process

    console = Console(stderr=True)
    columns = (
        TextColumn("抽取"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[triplets]} 三元组"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal or bool(os.environ.get("TRIPLETUNE_NO_PROGRESS"))
    quiet |= not is_main_process()
    with Progress(*columns, console=console, disable=quiet) as progress:
        yield _Bar(progress, total)
