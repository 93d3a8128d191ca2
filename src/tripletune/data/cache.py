"""Tokenised once: an Arrow file of token ids for each data file, tokenizer and settings.

The name of the file is a digest of everything its content depends on, so a changed data file,
vocabulary, prompt or length limit finds no file and makes a new one. Processes that want the same
file at the same time wait for the first. Reading maps the file into memory and loads what is asked
for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

from tripletune.data.encode import (
    EncodingReport,
    LongTextPolicy,
    TokenizedExample,
    encode_examples,
)
from tripletune.data.linearize import render_target
from tripletune.data.prompts import encode_answer, encode_prompt, render_query
from tripletune.data.readers import read_examples
from tripletune.errors import MissingPackageError, OutputError
from tripletune.schema import Example, Triplet

__all__ = ["EncodedFile", "find_cache_dir", "load_encoded"]

_LOGGER = logging.getLogger(__name__)
_BATCH_EXAMPLES = 2048
_CHUNK_BYTES = 1 << 20
_PROBE = Example(
    "甲,乙 A1位于\\丙。", (Triplet("甲, 乙", "位于", "\\丙"), Triplet("A1", "r", "甲"))
)


class EncodedFile(Sequence[TokenizedExample]):
    """The tokenised examples of a cache file, mapped into memory.

    Args:
        path: The Arrow file.

    Raises:
        OSError: it cannot be opened or is no Arrow file.
    """

    def __init__(self, path: Path):
        arrow = _import_arrow()
        self.path = path
        try:
            with arrow.memory_map(str(path)) as source:
                table = arrow.ipc.open_file(source).read_all()
        except arrow.ArrowInvalid as error:
            raise OSError(f"{path}: {error}") from error
        self._ids = table.column("input_ids")
        self._prompts = table.column("num_prompt_tokens")

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, index: int) -> TokenizedExample: ...

    @overload
    def __getitem__(self, index: slice) -> list[TokenizedExample]: ...

    def __getitem__(self, index: int | slice) -> TokenizedExample | list[TokenizedExample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return TokenizedExample(self._ids[place].as_py(), self._prompts[place].as_py())


def load_encoded(
    path: str | Path,
    tokenizer: Any,
    *,
    max_source_tokens: int,
    max_target_tokens: int,
    long_texts: LongTextPolicy = "drop",
    relations: Sequence[str] | None = None,
    input_format: str | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[EncodedFile, EncodingReport]:
    """The tokenised examples of a data file, from the cache or made for it now.

    Args:
        path: The data file, of any known format.
        tokenizer: The model's tokenizer.
        max_source_tokens: As for `encode_examples`.
        max_target_tokens: As for `encode_examples`.
        long_texts: As for `encode_examples`.
        relations: As for `encode_examples`.
        input_format: None recognises it by content.
        cache_dir: Where cache files lie; None is `find_cache_dir()`.

    Raises:
        DataError: the data file cannot be read.
        OutputError: the cache file cannot be written.
    """
    path, folder = Path(path), Path(cache_dir) if cache_dir is not None else find_cache_dir()
    settings: dict[str, Any] = {
        "max_source_tokens": max_source_tokens,
        "max_target_tokens": max_target_tokens,
        "long_texts": long_texts,
        "relations": None if relations is None else list(relations),
    }
    examples = read_examples(path, format=input_format)
    key = _compute_key(path, tokenizer, {**settings, "format": input_format})
    target, side = folder / f"{key}.arrow", folder / f"{key}.json"
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            found = _open(target, side)
            if found is None:
                report = _write(examples, tokenizer, settings, target, side)
                found = EncodedFile(target), report
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{folder}: the cache cannot be written: {error.strerror or error}; name another folder"
        ) from error
    return found


def find_cache_dir() -> Path:
    """`$TRIPLETUNE_CACHE`, or `tripletune` in the user's cache folder."""
    given = os.environ.get("TRIPLETUNE_CACHE")
    if given:
        return Path(given)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "tripletune"


def _compute_key(path: Path, tokenizer: Any, settings: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(b"file")
            with file.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    for token, index in sorted(vocabulary.items()):
        digest.update(f"{token}\0{index}\n".encode("utf-8", "surrogatepass"))
    # Wording of prompt and target, special tokens and chat template all show in one example.
    query = render_query(_PROBE.text, relations=settings["relations"])
    answer = render_target(_PROBE.triplets)
    probe = [encode_prompt(tokenizer, query), encode_answer(tokenizer, answer)]
    digest.update(json.dumps([query, answer, probe]).encode())
    return digest.hexdigest()


def _open(target: Path, side: Path) -> tuple[EncodedFile, EncodingReport] | None:
    if not target.is_file():
        return None
    try:
        report = EncodingReport(**json.loads(side.read_text(encoding="utf-8")))
        return EncodedFile(target), report
    except (OSError, ValueError, TypeError) as error:
        _LOGGER.warning("%s: cannot be read (%s) and is made again", target, error)
        return None


def _write(
    examples: Iterator[Example],
    tokenizer: Any,
    settings: dict[str, Any],
    target: Path,
    side: Path,
) -> EncodingReport:
    arrow = _import_arrow()
    columns = [("input_ids", arrow.list_(arrow.int32())), ("num_prompt_tokens", arrow.int32())]
    schema = arrow.schema(columns)
    total = EncodingReport()
    part = target.with_suffix(".part")
    try:
        with arrow.OSFile(str(part), "wb") as sink, arrow.ipc.new_file(sink, schema) as writer:
            while batch := list(islice(examples, _BATCH_EXAMPLES)):
                encoded, report = encode_examples(batch, tokenizer, **settings)
                _add(total, report)
                rows = {
                    "input_ids": [example.input_ids for example in encoded],
                    "num_prompt_tokens": [example.num_prompt_tokens for example in encoded],
                }
                writer.write_table(arrow.table(rows, schema=schema))
        side.write_text(json.dumps(dataclasses.asdict(total)) + "\n", encoding="utf-8")
        # Last, because the file's being there says that all of it is.
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return total


def _add(total: EncodingReport, report: EncodingReport) -> None:
    total.dropped.extend(total.num_examples + index for index in report.dropped)
    for field in dataclasses.fields(EncodingReport):
        if field.name != "dropped":
            value = getattr(total, field.name) + getattr(report, field.name)
            setattr(total, field.name, value)


def _import_arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError("the token cache needs pyarrow: pip install pyarrow") from error
    return pyarrow
