"""Which texts of some files occur more than once: equal, equal but for form, or nearly equal.

Memory is about 30 bytes a text while texts are added and about 90 while matches are looked for
(some 0.9 GB for ten million); normalised texts and band keys lie in a temporary folder, about as
large as the texts themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tripletune.data.fingerprint import (
    NUM_BANDS,
    compute_bands,
    compute_similarity,
    normalise_text,
    split_pieces,
)
from tripletune.errors import ConfigError

__all__ = ["Match", "MatchKind", "TextIndex"]

MatchKind = Literal["exact", "normalised", "near"]
_BATCH_TEXTS = 4096
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """One text that repeats an earlier one.

    Attributes:
        index: The later text, counted from 0 over all files.
        other: The earlier text: of an earlier file for a leak, else of the same file.
        kind: How alike they are.
        is_leak: Whether they stand in different files.
        similarity: Share of common three-character pieces; 1 unless the kind is "near".
    """

    index: int
    other: int
    kind: MatchKind
    is_leak: bool
    similarity: float = 1.0


class TextIndex:
    """Collects texts file by file, then finds those that repeat others.

    Used in a `with` block, which removes the temporary folder.

    Args:
        threshold: The similarity from which texts are near duplicates, above 0 up to 1; None does
            not look for them.
        folder: Where the temporary folder is made; None is the system's place.

    Raises:
        ConfigError: the threshold is out of range.

    Example:
        >>> with TextIndex(threshold=None) as index:
        ...     for text in ("甲位于乙。", "甲位于乙"):
        ...         index.start_file()
        ...         index.add(text)
        ...     [(match.index, match.other, match.kind) for match in index.find_matches()]
        [(1, 0, 'normalised')]
    """

    def __init__(self, *, threshold: float | None = 0.8, folder: Path | None = None):
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigError(f"threshold: {threshold!r} is not above 0 and at most 1")
        self._threshold = threshold
        self._folder = TemporaryDirectory(
            prefix="tripletune-", dir=folder, ignore_cleanup_errors=True
        )
        root = Path(self._folder.name)
        self._file_starts: list[int] = []
        self._text_hashes = array("q")
        self._form_hashes = array("q")
        self._offsets = array("q", [0])
        self._pending: list[str] = []
        self._texts = (root / "texts").open("w+b")
        self._bands = [(root / f"band{band}").open("w+b") for band in range(NUM_BANDS)]

    def __enter__(self) -> TextIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._texts, *self._bands):
            file.close()
        self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._text_hashes)

    def start_file(self) -> None:
        """Say that the texts that follow belong to another file."""
        self._file_starts.append(len(self))

    def add(self, text: str) -> None:
        """Take a text of the present file, which must not be empty."""
        form = normalise_text(text)
        self._text_hashes.append(hash(text))
        self._form_hashes.append(hash(form))
        if self._threshold is not None:
            self._pending.append(form)
            if len(self._pending) == _BATCH_TEXTS:
                self._flush()

    def get_file(self, index: int) -> int:
        """The number, from 0, of the file a text belongs to."""
        return int(np.searchsorted(np.array(self._file_starts), index, side="right")) - 1

    def find_matches(self) -> Iterator[Match]:
        """Every text that repeats an earlier one, at most once as a leak and once in its file.

        Equal texts come first, then near duplicates among the rest.
        """
        files = self._build_files()
        known = np.zeros((2, len(self)), dtype=bool)
        for match in self._find_equal(files):
            known[int(match.is_leak), match.index] = True
            yield match
        if self._threshold is not None:
            yield from self._find_near(files, known)

    def _flush(self) -> None:
        if not self._pending:
            return
        keys = compute_bands(self._pending)
        for band, file in enumerate(self._bands):
            file.write(np.ascontiguousarray(keys[:, band]).tobytes())
        position = self._offsets[-1]
        for form in self._pending:
            raw = form.encode("utf-8", "surrogatepass")
            self._texts.write(raw)
            position += len(raw)
            self._offsets.append(position)
        self._pending.clear()

    def _build_files(self) -> NDArray[np.int32]:
        files = np.zeros(len(self), dtype=np.int32)
        for start in self._file_starts[1:]:
            files[start:] += 1
        return files

    def _find_equal(self, files: NDArray[np.int32]) -> Iterator[Match]:
        texts = np.frombuffer(self._text_hashes, dtype=np.int64)
        forms = np.frombuffer(self._form_hashes, dtype=np.int64)
        for run in _iter_runs(forms):
            # Earliest text of the run: in each file, and of each wording in each file.
            first_in_file: dict[int, int] = {}
            first_of_text: dict[tuple[int, int], int] = {}
            for index in run.tolist():
                file, text = int(files[index]), int(texts[index])
                earlier = [other for other in first_in_file if other != file]
                if earlier:
                    same = [first_of_text.get((other, text)) for other in earlier]
                    exact = next((other for other in same if other is not None), None)
                    other = first_in_file[earlier[0]] if exact is None else exact
                    yield Match(index, other, "normalised" if exact is None else "exact", True)
                if file in first_in_file:
                    exact = first_of_text.get((file, text))
                    other = first_in_file[file] if exact is None else exact
                    yield Match(index, other, "normalised" if exact is None else "exact", False)
                first_in_file.setdefault(file, index)
                first_of_text.setdefault((file, text), index)

    def _find_near(self, files: NDArray[np.int32], known: NDArray[np.bool_]) -> Iterator[Match]:
        self._flush()
        self._texts.flush()
        if self._offsets[-1] == 0 or self._threshold is None:
            return
        forms = np.frombuffer(self._form_hashes, dtype=np.int64)
        for file in self._bands:
            file.seek(0)
            keys = np.fromfile(file, dtype=np.uint64)
            for one, other in _iter_candidates(keys, files, forms, known):
                is_leak = bool(files[one] != files[other])
                if known[int(is_leak), other]:
                    continue
                similarity = compute_similarity(self._load_pieces(one), self._load_pieces(other))
                if similarity >= self._threshold:
                    known[int(is_leak), other] = True
                    yield Match(other, one, "near", is_leak, similarity)

    def _load_pieces(self, index: int) -> frozenset[str]:
        # Read, not mapped: each touch of a mapped file makes 64 KiB of it resident.
        self._texts.seek(self._offsets[index])
        raw = self._texts.read(self._offsets[index + 1] - self._offsets[index])
        return split_pieces(raw.decode("utf-8", "surrogatepass"))


def _iter_runs(keys: NDArray[np.int64] | NDArray[np.uint64]) -> Iterator[Indices]:
    """Ascending positions of each key that occurs more than once, by first position."""
    order = np.argsort(keys, kind="stable")
    same = np.zeros(len(keys) + 1, dtype=bool)
    same[1:-1] = keys[order[1:]] == keys[order[:-1]]
    # A run begins where a place equals the next but not the one before.
    starts = np.flatnonzero(~same[:-1] & same[1:])
    ends = np.flatnonzero(same[:-1] & ~same[1:]) + 1
    # Hash values differ from run to run; the order of what is found must not.
    for place in np.argsort(order[starts], kind="stable").tolist():
        yield order[starts[place] : ends[place]]


def _iter_candidates(
    keys: NDArray[np.uint64],
    files: NDArray[np.int32],
    forms: NDArray[np.int64],
    known: NDArray[np.bool_],
) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) to compare: with the first of the run in each file and the last one.

    Texts equal in form are left out; so is what is known already.
    """
    for run in _iter_runs(keys):
        if bool((forms[run] == forms[run[0]]).all()):
            continue
        first_in_file: dict[int, int] = {}
        before = -1
        for index in run.tolist():
            file = int(files[index])
            if not known[:, index].all():
                partners = {*first_in_file.values(), before} - {-1}
                for partner in sorted(partners):
                    if forms[partner] != forms[index]:
                        yield partner, index
            first_in_file.setdefault(file, index)
            before = index
