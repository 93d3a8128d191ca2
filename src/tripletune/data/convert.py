"""Convert a file of any known format, and keep account of everything that did not come through."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tripletune.data.output_path import check_output_path
from tripletune.data.readers import detect_format
from tripletune.data.readers.problem import Problem, Problems
from tripletune.data.readers.registry import get_format
from tripletune.data.writers import OutputFormat, choose_output_format, open_output, write_examples
from tripletune.schema import Example

__all__ = ["ConversionReport", "convert_file"]


@dataclass(slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        input_path: The file read.
        input_format: Its format, as recognised or named.
        output_path: The file written.
        output_format: Its format.
        num_examples: Examples written.
        num_triplets: Triplets in them.
        num_empty: Examples without a triplet.
        reasons: How often each (action, reason) occurred.
        tallies: Facts of the source that the output cannot hold, counted.
        problems_path: Where each problem is listed, or None when there was none.
    """

    input_path: str
    input_format: str
    output_path: str
    output_format: str
    num_examples: int = 0
    num_triplets: int = 0
    num_empty: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    tallies: dict[str, int] = field(default_factory=dict)
    problems_path: str | None = None

    def count(self, action: str) -> int:
        """How often an action was taken, such as "dropped record"."""
        return sum(number for (taken, _), number in self.reasons.items() if taken == action)

    def to_record(self) -> dict[str, Any]:
        """The JSON object of `OUT.report.json`."""
        by_action: dict[str, dict[str, int]] = {}
        for (action, reason), number in sorted(self.reasons.items()):
            by_action.setdefault(action, {})[reason] = number
        return {
            "input": self.input_path,
            "input_format": self.input_format,
            "output": self.output_path,
            "output_format": self.output_format,
            "examples": self.num_examples,
            "triplets": self.num_triplets,
            "examples_without_triplet": self.num_empty,
            "dropped_records": self.count("dropped record"),
            "dropped_triplets": self.count("dropped triplet"),
            "changed": self.count("changed"),
            "reasons": by_action,
            "tallies": self.tallies,
            "problems": self.problems_path,
        }


class ProblemList:
    """A side file that comes into being with its first problem."""

    def __init__(self, path: Path, stack: ExitStack):
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self._stack = stack
        self._write: Callable[[str], object] | None = None

    def add(self, problem: Problem) -> None:
        """Count a problem and write its line."""
        self.counts[(problem.action, problem.reason)] += 1
        if self._write is None:
            self._write = self._stack.enter_context(open_output(self.path)).write
        self._write(json.dumps(problem.to_record(), ensure_ascii=False) + "\n")


def convert_file(
    input_path: str | Path,
    output_path: str | Path,
    *,
    input_format: str | None = None,
    output_format: OutputFormat | None = None,
    instruction: str | None = None,
) -> ConversionReport:
    """Convert a file in one pass and write `OUT.report.json` and, if needed, `OUT.problems.jsonl`.

    Args:
        input_path: A file (or folder) of any format in `FORMATS`.
        output_path: The file to write.
        input_format: The name of its format; None recognises it by content.
        output_format: None writes Parquet for `.parquet` and canonical lines otherwise.
        instruction: The question in instruction and chat records.

    Raises:
        DataError: the input as a whole cannot be read, or no format fits.
        OutputError: a file cannot be written.
        ConfigError: input and output are one file, or a format is unknown.
    """
    source, target = Path(input_path), Path(output_path)
    check_output_path(target, [source])
    chosen = choose_output_format(target, output_format)
    known = detect_format(source) if input_format is None else get_format(input_format)
    report = ConversionReport(str(source), known.name, str(target), chosen)
    side = target.with_name(target.name + ".problems.jsonl")
    side.unlink(missing_ok=True)
    with ExitStack() as stack:
        listed = ProblemList(side, stack)
        problems = Problems(source, listed.add)
        examples = _count(known.read(source, problems), report)
        report.num_examples = write_examples(
            examples, target, output_format=chosen, instruction=instruction
        )
        report.reasons = listed.counts
        report.tallies = dict(problems.tallies)
        report.problems_path = str(side) if listed.counts else None
    with open_output(target.with_name(target.name + ".report.json")) as file:
        file.write(json.dumps(report.to_record(), ensure_ascii=False, indent=2) + "\n")
    return report


def _count(examples: Iterator[Example], report: ConversionReport) -> Iterator[Example]:
    for example in examples:
        report.num_triplets += len(example.triplets)
        report.num_empty += not example.triplets
        yield example
