"""`inference_triplet.py`: a sentence, a file, or a dialogue with sample sentences."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tripletune.cli.adapters import find_adapter
from tripletune.cli.arguments import OneLineParser, add_vote_flags
from tripletune.cli.quiet import quiet_libraries
from tripletune.data.output_path import check_output_path
from tripletune.errors import DataError
from tripletune.schema import Extraction

__all__ = ["SAMPLES", "infer_from_arguments"]

SAMPLES = [
    "苹果公司是一家美国的科技公司。",
    "《长夜灯火》的作者是顾清源，由青禾出版社出版。",
    "星海科技有限公司由林若溪创立，总部位于杭州市。",
    "周明远毕业于江南理工大学，现任远航集团董事长。",
    "今天的天气真不错，适合出门散步。",
]
_LEAVE = {"quit", "exit", "q", "退出"}


def infer_from_arguments(argv: Sequence[str] | None) -> int:
    """Extracts from what the flags name; returns the exit code."""
    parser = OneLineParser(description="TripleTune: 抽取三元组")
    parser.add_argument("text", nargs="*", help="一句话 (可多句)；不给则进入对话")
    parser.add_argument("--adapter", help="训练输出目录 (默认: output/ 下最近一次训练)")
    parser.add_argument("--base_model", help="基础模型 (默认: 适配器中记录的)")
    parser.add_argument("--input", help="输入文件: 每行一句，或 JSONL")
    parser.add_argument("--output", help="输出文件 (JSONL)；不给则打印")
    parser.add_argument("--batch_size", type=int, help="批次大小 (默认: GPU 128 以内, CPU 16)")
    add_vote_flags(parser)
    parser.add_argument("--free", action="store_true", help="不约束输出 (默认约束为文本中的片段)")
    arguments = parser.parse_args(argv)
    texts = list(arguments.text)
    target = None if arguments.output is None else Path(arguments.output)
    if arguments.input is not None:
        check_output_path(target, [Path(arguments.input)])
        texts += _read_texts(Path(arguments.input))
    folder = find_adapter(arguments.adapter)
    extractor = _load(folder, arguments)
    if not texts:
        return _talk(extractor)
    extractions = extractor.extract(texts)
    if target is not None:
        lines = "".join(extraction.to_json() + "\n" for extraction in extractions)
        _write(target, lines)
        print(f"{len(extractions)} 条结果写入 {target}")
    else:
        for extraction in extractions:
            _show(extraction)
    return 0


def _load(folder: Path, arguments: Any) -> Any:
    from tripletune.extraction.extractor import Extractor

    quiet_libraries()
    print(f"加载 {folder} ...", file=sys.stderr)
    return Extractor.from_pretrained(
        folder,
        base_model=arguments.base_model,
        batch_size=arguments.batch_size,
        votes=arguments.votes,
        vote_share=arguments.vote_share,
        constrained=False if arguments.free else None,
    )


def _talk(extractor: Any) -> int:
    print("输入一句话抽取三元组，或输入示例编号；quit 或 exit 退出。")
    for number, sample in enumerate(SAMPLES, 1):
        print(f"  {number}. {sample}")
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            print()
            return 0
        if text.lower() in _LEAVE:
            return 0
        if not text:
            continue
        if text.isdigit() and 1 <= int(text) <= len(SAMPLES):
            text = SAMPLES[int(text) - 1]
        _show(extractor.extract([text])[0])


def _show(extraction: Extraction) -> None:
    print(f"文本: {extraction.text}")
    if not extraction.triplets:
        print("  (没有三元组)")
    for triplet in extraction.triplets:
        certainty = "" if triplet.confidence is None else f"  置信度 {triplet.confidence:.2f}"
        print(f"  ({triplet.subject}, {triplet.relation}, {triplet.object}){certainty}")
    for problem in extraction.problems:
        print(f"  ! {problem}")


def _read_texts(path: Path) -> list[str]:
    if path.suffix.lower() in (".jsonl", ".json"):
        return _read_records(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("no such file; check the path (--input)", path=path) from None
    except IsADirectoryError:
        raise DataError("this is a folder; give a file (--input)", path=path) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start}; convert it first, e.g. iconv -f GB18030 -t UTF-8",
            path=path,
        ) from None
    texts = [line.strip() for line in content.splitlines() if line.strip()]
    if not texts:
        raise DataError("the file has no text; give one sentence a line", path=path)
    return texts


def _read_records(path: Path) -> list[str]:
    from tripletune.extraction.job_input import iter_records

    texts = []
    for record in iter_records(path):
        if record.problem:
            raise DataError(record.problem)
        texts.append(record.text)
    return texts


def _write(path: Path, content: str) -> None:
    from tripletune.errors import OutputError

    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"output: {str(path)!r} cannot be written ({error.strerror})") from error
