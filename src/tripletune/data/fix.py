"""Mend a data file: leaks, duplicates and damaged characters out, into a new file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tripletune.data.convert import ProblemList
from tripletune.data.duplicates import Match, TextIndex
from tripletune.data.inspection import find_nearest
from tripletune.data.output_path import check_output_path
from tripletune.data.readers import open_examples
from tripletune.data.readers.problem import Action, Problem, Problems
from tripletune.data.relation_schema import RelationSchema
from tripletune.data.writers import OutputFormat, open_output, write_examples
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet

__all__ = ["FixReport", "FixSettings", "fix_file"]

_DAMAGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ue000-\uf8ff]")
_MIN_NEAREST_SCORE = 90.0


@dataclass(frozen=True, slots=True)
class FixSettings:
    """What to mend and how.

    Attributes:
        input_format: The format of the files; None recognises each by content.
        near_threshold: Similarity from which texts count as leaked; None takes equal texts only.
        contradictory: What becomes of a text that is there again with other triplets: the first
            stays ("first"), the first gets the triplets of all ("merge"), or all go ("drop").
        absent_items: What becomes of a triplet with a subject or object that is not in the text:
            it stays ("keep"), goes ("drop"), or takes the nearest words of the text if they are
            alike at least 90 in 100 ("nearest").
        schema: With one, triplets whose types fit only the other way round are turned.
    """

    input_format: str | None = None
    near_threshold: float | None = 0.8
    contradictory: Literal["first", "merge", "drop"] = "first"
    absent_items: Literal["keep", "drop", "nearest"] = "keep"
    schema: RelationSchema | None = None


@dataclass(slots=True)
class FixReport:
    """What was mended.

    Attributes:
        num_read: Examples read.
        num_written: Examples written.
        reasons: How often each (action, reason) occurred.
        problems_path: Where each is listed, or None when there was nothing to mend.
    """

    num_read: int = 0
    num_written: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems_path: str | None = None

    def to_record(self) -> dict[str, Any]:
        """The JSON object of `OUT.report.json`."""
        by_action: dict[str, dict[str, int]] = {}
        for (action, reason), number in sorted(self.reasons.items()):
            by_action.setdefault(action, {})[reason] = number
        return {
            "read": self.num_read,
            "written": self.num_written,
            "reasons": by_action,
            "problems": self.problems_path,
        }


def fix_file(
    input_path: str | Path,
    output_path: str | Path,
    *,
    against: Sequence[str | Path] = (),
    settings: FixSettings | None = None,
    output_format: OutputFormat | None = None,
) -> FixReport:
    """Write a mended copy of a training file; the input is read twice and never changed.

    Texts that a held-out file has too are left out, so that scores on it mean something; so are
    texts that are there again. Every example left out or changed is listed in
    `OUT.problems.jsonl`, the counts in `OUT.report.json`.

    Args:
        input_path: The training file.
        output_path: The file to write.
        against: Held-out files, which stay as they are.
        settings: What to mend; None is the defaults.
        output_format: As for `convert_file`.

    Raises:
        DataError: a file as a whole cannot be read.
        OutputError: a file cannot be written.
        ConfigError: the output is one of the files read.
    """
    settings = settings or FixSettings()
    source, target = Path(input_path), Path(output_path)
    held_out = [Path(path) for path in against]
    check_output_path(target, [source, *held_out])
    plan = _Plan(source, held_out, settings)
    report = FixReport()
    side = target.with_name(target.name + ".problems.jsonl")
    side.unlink(missing_ok=True)
    with ExitStack() as stack:
        listed = ProblemList(side, stack)
        mended = _Mender(source, settings, plan, listed, report).iter_examples()
        report.num_written = write_examples(mended, target, output_format=output_format)
        report.reasons = listed.counts
        report.problems_path = str(side) if listed.counts else None
    with open_output(target.with_name(target.name + ".report.json")) as file:
        file.write(json.dumps(report.to_record(), ensure_ascii=False, indent=2) + "\n")
    return report


class _Plan:
    """What becomes of each example of the training file, by its number from 0.

    Attributes:
        leaks: Examples that a held-out file has too, and where.
        repeats: Examples whose text came before, and the number of the first.
        merged: Triplets to add to the first example of a text that is there again.
        contradicted: Examples whose text is there again with other triplets.
    """

    def __init__(self, source: Path, held_out: Sequence[Path], settings: FixSettings):
        self.leaks: dict[int, tuple[str, str]] = {}
        self.repeats: dict[int, int] = {}
        self.merged: dict[int, dict[Triplet, None]] = {}
        self.contradicted: set[int] = set()
        with TextIndex(threshold=settings.near_threshold) as index:
            for path in (*held_out, source):
                index.start_file()
                start = len(index)
                for example in _read_quietly(path, settings):
                    index.add(example.text)
            places = [str(path) for path in held_out]
            for match in index.find_matches():
                if index.get_file(match.index) == len(held_out):
                    self._add(match, start, places, index)
        if settings.contradictory != "first" and self.repeats:
            self._compare_labels(source, settings)

    def _add(self, match: Match, start: int, places: list[str], index: TextIndex) -> None:
        number = match.index - start
        if match.is_leak:
            self.leaks[number] = (f"leak_{match.kind}", places[index.get_file(match.other)])
        elif match.kind != "near":
            self.repeats[number] = match.other - start

    def _compare_labels(self, source: Path, settings: FixSettings) -> None:
        wanted = set(self.repeats.values())
        labels: dict[int, frozenset[Triplet]] = {}
        for number, example in enumerate(_read_quietly(source, settings)):
            if number in wanted:
                labels[number] = frozenset(example.triplets)
            first = self.repeats.get(number)
            if first is None:
                continue
            first = self.repeats.get(first, first)
            if frozenset(example.triplets) != labels.get(first):
                self.contradicted.update((first, number))
            added = self.merged.setdefault(first, {})
            added.update(dict.fromkeys(example.triplets))


class _Mender:
    def __init__(
        self,
        source: Path,
        settings: FixSettings,
        plan: _Plan,
        listed: ProblemList,
        report: FixReport,
    ):
        self.settings = settings
        self.plan = plan
        self.listed = listed
        self.report = report
        self.problems = Problems(source, listed.add)

    def iter_examples(self) -> Iterator[Example]:
        source = open_examples(self.problems.path, self.problems, format=self.settings.input_format)
        for number, example in enumerate(source):
            self.report.num_read += 1
            if not self._is_dropped(number, example):
                mended = self._mend(number, example)
                if mended is not None:
                    yield mended

    def _note(self, action: Action, reason: str, message: str, value: str) -> None:
        problem = Problem(
            reason, action, message, str(self.problems.path), self.problems.line, value[:200]
        )
        self.listed.add(problem)

    def _is_dropped(self, number: int, example: Example) -> bool:
        leak = self.plan.leaks.get(number)
        if leak is not None:
            self._note("dropped record", leak[0], f"the text is also in {leak[1]}", example.text)
        elif self.settings.contradictory == "drop" and number in self.plan.contradicted:
            message = "the text is there again with other triplets"
            self._note("dropped record", "contradictory_labels", message, example.text)
        elif number in self.plan.repeats:
            message = f"the text is that of example {self.plan.repeats[number] + 1}"
            self._note("dropped record", "duplicate_text", message, example.text)
        else:
            return False
        return True

    def _mend(self, number: int, example: Example) -> Example | None:
        triplets = list(example.triplets)
        if self.settings.contradictory == "merge":
            added = [t for t in self.plan.merged.get(number, ()) if t not in triplets]
            if added:
                message = f"{len(added)} triplets of the same text elsewhere are added"
                self._note("changed", "merged_labels", message, example.text)
            triplets.extend(added)
        text = _DAMAGE.sub("", example.text)
        if text != example.text:
            self._note("changed", "damaged_characters", "characters removed", example.text)
            if not text.strip():
                self._note("dropped record", "empty_text", "nothing is left", example.text)
                return None
        shifted = text != example.text
        kept: dict[tuple[object, ...], Triplet] = {}
        for triplet in triplets:
            mended = self._mend_triplet(triplet, text, shifted=shifted)
            if mended is None:
                continue
            key = (mended.key, mended.object_slots)
            if key in kept:
                self._note("changed", "repeated_triplet", f"{mended.key} given twice", text)
            kept.setdefault(key, mended)
        if triplets and not kept:
            message = "none of its triplets is left, and without them it would teach that none are"
            self._note("dropped record", "no_triplet_left", message, example.text)
            return None
        return Example(text, tuple(kept.values()), example.id)

    def _mend_triplet(self, triplet: Triplet, text: str, *, shifted: bool) -> Triplet | None:
        items = [_DAMAGE.sub("", item).strip() for item in triplet.key]
        if not all(items):
            message = f"nothing is left of an item of {triplet.key}"
            self._note("dropped triplet", "empty_item", message, text)
            return None
        if self.settings.absent_items != "keep":
            for place in (0, 2):
                found = items[place] if items[place] in text else self._find(items[place], text)
                if found is None:
                    message = f"{items[place]!r} of {triplet.key} is not in the text"
                    self._note("dropped triplet", "item_not_in_text", message, text)
                    return None
                items[place] = found
        if shifted or tuple(items) != triplet.key:
            if tuple(items) != triplet.key:
                message = f"{triplet.key} became {tuple(items)}"
                self._note("changed", "mended_item", message, text)
            triplet = replace(
                triplet,
                subject=items[0],
                relation=items[1],
                object=items[2],
                subject_span=None,
                object_span=None,
            )
        if self.settings.schema is not None and self.settings.schema.judge(triplet) == "reversed":
            self._note("changed", "turned_triplet", f"{triplet.key} is turned round", text)
            return _turn(triplet)
        return triplet

    def _find(self, item: str, text: str) -> str | None:
        if self.settings.absent_items == "drop":
            return None
        nearest = find_nearest(item, text)
        if nearest is None or nearest[1] < _MIN_NEAREST_SCORE or not nearest[0].strip():
            return None
        return nearest[0]


def _turn(triplet: Triplet) -> Triplet:
    return replace(
        triplet,
        subject=triplet.object,
        object=triplet.subject,
        subject_type=triplet.object_type,
        object_type=triplet.subject_type,
        subject_span=triplet.object_span,
        object_span=triplet.subject_span,
    )


def _read_quietly(path: Path, settings: FixSettings) -> Iterator[Example]:
    """The examples that can be read; the pass that writes lists the others."""
    found = 0
    problems = Problems(path, lambda problem: None)
    for example in open_examples(path, problems, format=settings.input_format):
        found += 1
        yield example
    if not found:
        raise DataError(
            "holds no record that can be used; tripletune data check lists why", path=path
        )
