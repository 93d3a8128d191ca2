"""Tokenised once: an Arrow file of token ids for each set of examples, tokenizer and settings.

The name of the file is a digest of everything its content depends on, so a changed example,
tokenizer, prompt or length limit finds no file and makes a new one. Processes that want the same
file at the same time wait for the first. Reading maps the file into memory and loads what is asked
for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tripletune.data.encode import (
    EncodingReport,
    LongTextPolicy,
    TokenizedExample,
    encode_examples,
)
from tripletune.data.linearize import arrange_triplets, render_target
from tripletune.data.prompts import encode_answer, encode_prompt, render_query
from tripletune.errors import MissingPackageError, OutputError
from tripletune.schema import Example, Triplet

__all__ = ["EncodedFile", "load_encoded"]

_LOGGER = logging.getLogger(__name__)
_BATCH_EXAMPLES = 2048
_VERSION = 2  # To be raised when the same examples and settings are encoded differently.
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
        # Views of the mapped file, one for each part it was written in.
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = []
        self._starts = [0]
        for batch in table.to_batches():
            ids, prompts = batch.column("input_ids"), batch.column("num_prompt_tokens")
            self._parts.append((ids.values.to_numpy(), ids.offsets.to_numpy(), prompts.to_numpy()))
            self._starts.append(self._starts[-1] + len(batch))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [length for _, ends, _ in self._parts for length in np.diff(ends).tolist()]

    @property
    def prompt_lengths(self) -> list[int]:
        """Tokens of each example's prompt."""
        return [length for _, _, prompts in self._parts for length in prompts.tolist()]

    def __reduce__(self) -> tuple[type[EncodedFile], tuple[Path]]:
        return EncodedFile, (self.path,)

    def __len__(self) -> int:
        return self._starts[-1]

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
        part = bisect_right(self._starts, place) - 1
        values, ends, prompts = self._parts[part]
        place -= self._starts[part]
        ids: list[int] = values[ends[place] : ends[place + 1]].tolist()
        return TokenizedExample(ids, int(prompts[place]))


def load_encoded(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_source_tokens: int,
    max_target_tokens: int,
    cache_dir: str | Path,
    long_texts: LongTextPolicy = "drop",
    relations: Sequence[Sequence[str]] | None = None,
) -> tuple[EncodedFile, EncodingReport]:
    """The tokenised examples, from the cache or made for it now.

    Args:
        examples: As for `encode_examples`, as are the settings.
        tokenizer: The model's tokenizer.
        max_source_tokens: As for `encode_examples`.
        max_target_tokens: As for `encode_examples`.
        cache_dir: Where cache files lie; made if need be.
        long_texts: As for `encode_examples`.
        relations: As for `encode_examples`.

    Raises:
        OutputError: the cache file cannot be written.
    """
    folder = Path(cache_dir)
    settings: dict[str, Any] = {
        "max_source_tokens": max_source_tokens,
        "max_target_tokens": max_target_tokens,
        "long_texts": long_texts,
    }
    key = _compute_key(examples, relations, tokenizer, settings)
    target, side = folder / f"{key}.arrow", folder / f"{key}.json"
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            found = _open(target, side)
            if found is None:
                report = _write(examples, relations, tokenizer, settings, target, side)
                found = EncodedFile(target), report
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{folder}: the token cache cannot be written: {error.strerror or error}; make room or "
            "name another folder (cache_dir)"
        ) from error
    return found


def _compute_key(
    examples: Sequence[Example],
    relations: Sequence[Sequence[str]] | None,
    tokenizer: Any,
    settings: dict[str, Any],
) -> str:
    digest = hashlib.blake2b(f"{_VERSION} {json.dumps(settings)}\n".encode(), digest_size=16)
    for names in relations or ():
        digest.update(_join(names))
    for example in examples:
        triplets = arrange_triplets(example.text, example.triplets)
        digest.update(_join([example.text, *(item for t in triplets for item in t.key)]))
        digest.update(b"%d" % len(example.triplets))
    digest.update(_describe_tokenizer(tokenizer))
    # Wording of prompt and target, special tokens and chat template all show in one example.
    query = render_query(_PROBE.text, relations=None if relations is None else ["甲", "乙"])
    answer = render_target(_PROBE.triplets)
    probe = [encode_prompt(tokenizer, query), encode_answer(tokenizer, answer)]
    digest.update(json.dumps([query, answer, probe]).encode())
    return digest.hexdigest()


def _join(parts: Sequence[str]) -> bytes:
    """Some strings as bytes, with their lengths first, so that no others have the same."""
    return f"{list(map(len, parts))}{''.join(parts)}".encode("utf-8", "surrogatepass")


def _describe_tokenizer(tokenizer: Any) -> bytes:
    """All that a tokenizer's ids depend on, with merges and piece scores where it has them."""
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    parts = [f"{token}\0{index}\n" for token, index in sorted(vocabulary.items())]
    described = "".join(parts).encode("utf-8", "surrogatepass")
    if hasattr(tokenizer, "sp_model"):
        described += tokenizer.sp_model.serialized_model_proto()
    if hasattr(tokenizer, "backend_tokenizer"):
        described += tokenizer.backend_tokenizer.to_str().encode("utf-8", "surrogatepass")
    return described


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
    examples: Sequence[Example],
    relations: Sequence[Sequence[str]] | None,
    tokenizer: Any,
    settings: dict[str, Any],
    target: Path,
    side: Path,
) -> EncodingReport:
    arrow = _import_arrow()
    columns = [("input_ids", arrow.list_(arrow.int32())), ("num_prompt_tokens", arrow.int32())]
    schema = arrow.schema(columns)
    total = EncodingReport()
    unfinished = target.with_suffix(".part")
    try:
        with (
            arrow.OSFile(str(unfinished), "wb") as sink,
            arrow.ipc.new_file(sink, schema) as writer,
        ):
            for start in range(0, len(examples), _BATCH_EXAMPLES):
                part = slice(start, start + _BATCH_EXAMPLES)
                names = None if relations is None else relations[part]
                encoded, report = encode_examples(
                    examples[part], tokenizer, relations=names, **settings
                )
                _add(total, report)
                rows = {
                    "input_ids": [example.input_ids for example in encoded],
                    "num_prompt_tokens": [example.num_prompt_tokens for example in encoded],
                }
                writer.write_table(arrow.table(rows, schema=schema))
        side.write_text(json.dumps(dataclasses.asdict(total)) + "\n", encoding="utf-8")
        # Last, because the file's being there says that all of it is.
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
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
