"""Training and validation files whose sentences and entities never meet."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tripletune.data.generator.domain import Domain, Phrasings
from tripletune.data.generator.names import NAME_KINDS
from tripletune.data.generator.sentences import (
    Difficulty,
    Sentence,
    SentenceGenerator,
    build_example,
)
from tripletune.errors import ConfigError, OutputError
from tripletune.schema import Example

__all__ = [
    "TRAIN_FILE",
    "VALIDATION_FILE",
    "FileSummary",
    "NameFilter",
    "generate_examples",
    "open_names",
    "write_default_data",
    "write_files",
]

TRAIN_FILE = "train_triplet.jsonl"
VALIDATION_FILE = "val_triplet.jsonl"

_MAX_FRUITLESS = 10_000


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a written file holds.

    Attributes:
        path: The file.
        num_examples: Its lines.
        num_triplets: Triplets in all lines.
        num_relations: Different relation names.
        num_empty: Lines without a triplet.
        mean_characters: Mean length of a sentence.
        sample: The first example with a triplet, or the first one.
    """

    path: Path
    num_examples: int
    num_triplets: int
    num_relations: int
    num_empty: int
    mean_characters: float
    sample: Example


def generate_examples(
    num_train: int,
    num_validation: int,
    *,
    seed: int = 42,
    difficulty: Difficulty | None = None,
    domain: Domain | None = None,
    hold_out_phrasings: bool = False,
) -> tuple[Iterator[Example], list[Example]]:
    """Training examples, made as they are asked for, and validation examples.

    No sentence occurs twice, and no name of an open type in the validation sentences occurs
    anywhere in a training sentence, not even inside a longer name.

    Args:
        num_train: How many training examples, at least 1.
        num_validation: How many validation examples, at least 1.
        seed: The same seed gives the same examples.
        difficulty: What the sentences are like.
        domain: Types, relations and phrasings; the built-in ones when not given.
        hold_out_phrasings: Whether validation uses only phrasings that training never uses.

    Raises:
        ConfigError: a number is below 1, or the domain cannot make that many different sentences.
    """
    for name, value in (("num_train", num_train), ("num_validation", num_validation)):
        if value < 1:
            raise ConfigError(f"{name}: {value!r} is not a number of sentences; give at least 1")
    kept: Phrasings = "seen" if hold_out_phrasings else "all"
    reserved: Phrasings = "unseen" if hold_out_phrasings else "all"
    validation_source = SentenceGenerator(
        "validation", seed, difficulty=difficulty, domain=domain, phrasings=reserved
    )
    train_source = SentenceGenerator(
        "train", seed, difficulty=difficulty, domain=domain, phrasings=kept
    )
    seen: set[bytes] = set()
    validation = list(_distinct(validation_source, num_validation, seen, NameFilter(())))
    banned = NameFilter(name for sentence in validation for name in open_names(sentence))
    train = _distinct(train_source, num_train, seen, banned)
    return (
        (build_example(sentence, train_source.domain) for sentence in train),
        [build_example(sentence, validation_source.domain) for sentence in validation],
    )


def write_default_data(
    output_dir: str | Path,
    *,
    seed: int = 42,
    num_train: int = 903,
    num_validation: int = 101,
    difficulty: Difficulty | None = None,
) -> tuple[FileSummary, FileSummary]:
    """Writes `train_triplet.jsonl` and `val_triplet.jsonl` into a folder; says what they hold.

    Both files are complete before either takes its place; the same arguments give the same bytes.

    Raises:
        ConfigError: a number is below 1.
        OutputError: the folder or a file cannot be written.
    """
    folder = Path(output_dir)
    train, validation = generate_examples(
        num_train, num_validation, seed=seed, difficulty=difficulty
    )
    written = write_files({folder / TRAIN_FILE: train, folder / VALIDATION_FILE: validation})
    return written[0], written[1]


def write_files(files: dict[Path, Iterable[Example]]) -> list[FileSummary]:
    """Writes examples as canonical lines; no file is replaced before all are complete.

    Raises:
        OutputError: a folder or a file cannot be written.
    """
    summaries, places = [], []
    with ExitStack() as stack:
        for path, examples in files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            except OSError as error:
                raise OutputError(
                    f"{path}: cannot be written ({error.strerror}); choose another folder"
                ) from error
            temporary = Path(name)
            stack.callback(_discard, temporary)
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                summaries.append(_write_lines(path, file, examples))
            temporary.chmod(0o644)
            places.append((temporary, path))
        for temporary, path in places:
            try:
                temporary.replace(path)
            except OSError as error:
                raise OutputError(
                    f"{path}: cannot be replaced ({error.strerror}); remove it or choose another "
                    "folder"
                ) from error
    return summaries


def open_names(sentence: Sentence) -> Iterator[str]:
    """The names in a sentence that belong to a pool."""
    return (name for name, kind in sentence.mentions if NAME_KINDS.get(kind, ("", True))[1])


class NameFilter:
    """Finds any of some names in a text, names within longer words included.

    Args:
        names: The names to look for.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_start: dict[str, list[str]] = {}
        for name in sorted(set(names)):
            self._by_start.setdefault(name[:2], []).append(name)

    def occurs(self, text: str) -> bool:
        """Whether any of the names stands anywhere in the text."""
        by_start = self._by_start
        for start in range(len(text)):
            names = by_start.get(text[start : start + 2])
            if names and any(text.startswith(name, start) for name in names):
                return True
        return False


def _distinct(
    source: SentenceGenerator, count: int, seen: set[bytes], banned: NameFilter
) -> Iterator[Sentence]:
    fruitless = 0
    while count:
        sentence = source.generate_sentence()
        key = hashlib.blake2b(sentence.text.encode(), digest_size=8).digest()
        if key in seen or banned.occurs(sentence.text):
            fruitless += 1
            if fruitless > _MAX_FRUITLESS:
                raise ConfigError(
                    f"{count} more different sentences are wanted, but {_MAX_FRUITLESS} attempts "
                    "in a row gave none; ask for fewer, or give more facts, names or phrasings"
                )
            continue
        fruitless = 0
        seen.add(key)
        count -= 1
        yield sentence


def _write_lines(path: Path, file: TextIO, examples: Iterable[Example]) -> FileSummary:
    num_examples = num_triplets = num_empty = num_characters = 0
    relations: set[str] = set()
    sample: Example | None = None
    for example in examples:
        file.write(example.to_json() + "\n")
        num_examples += 1
        num_triplets += len(example.triplets)
        num_empty += not example.triplets
        num_characters += len(example.text)
        relations.update(triplet.relation for triplet in example.triplets)
        if sample is None or (example.triplets and not sample.triplets):
            sample = example
    if sample is None:
        raise ConfigError(f"{path}: no example to write; ask for at least 1")
    mean = num_characters / num_examples
    return FileSummary(path, num_examples, num_triplets, len(relations), num_empty, mean, sample)


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
