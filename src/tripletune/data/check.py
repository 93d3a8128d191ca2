"""Check data files: what is wrong, what leaks from one into another, and their figures."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tripletune.data.duplicates import Match, TextIndex
from tripletune.data.inspection import SEVERITIES, Severity, inspect_example
from tripletune.data.readers import detect_format
from tripletune.data.readers.problem import Problem, Problems
from tripletune.data.readers.registry import get_format
from tripletune.data.relation_schema import Relation, RelationSchema, TypePair, judge_types
from tripletune.data.statistics import FileStatistics, PairTable, find_similar_names
from tripletune.errors import ConfigError
from tripletune.schema import Example

__all__ = ["CheckReport", "CheckSettings", "Finding", "check_files"]

_RARE = 5
_MIN_DIRECTION_TRIPLETS = 20
_MAX_MINORITY_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What to check against.

    Attributes:
        input_format: The format of all files; None recognises each by content.
        schema: Relations and types that are allowed; None checks neither.
        near_threshold: Similarity from which texts are near duplicates; None does not look.
        max_item_characters: Longer subjects, relations and objects are found.
        count_tokens: Numbers of tokens of an example's prompt and target in the chosen model; None
            counts characters only.
        max_prompt_tokens: Longer prompts are found, when tokens are counted.
        max_target_tokens: Longer target texts are found, when tokens are counted.
        max_listed: How many findings of each kind are kept with their place; all are counted.
    """

    input_format: str | None = None
    schema: RelationSchema | None = None
    near_threshold: float | None = 0.8
    max_item_characters: int = 60
    count_tokens: Callable[[Example], tuple[int, int]] | None = None
    max_prompt_tokens: int = 512
    max_target_tokens: int = 256
    max_listed: int = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        kind: A key of `SEVERITIES`.
        message: One sentence with the values.
        path: The file, or "" for a finding about all of them.
        line: The one-based line (for formats without lines: record) number, when it has one.
    """

    kind: str
    message: str
    path: str = ""
    line: int | None = None

    @property
    def severity(self) -> Severity:
        """How serious it is."""
        return SEVERITIES[self.kind]

    def to_record(self) -> dict[str, Any]:
        """The JSON object of this finding."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "path": self.path,
            "line": self.line,
            "message": self.message,
        }


@dataclass(slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        files: The figures of each file, in the order given.
        formats: The format of each file.
        counts: How many findings of each kind there are.
        findings: The first of each kind.
        num_pairs: Different (subject, object) pairs looked at.
        num_ambiguous_pairs: Those of them that carry more than one relation.
    """

    files: list[FileStatistics] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    num_pairs: int = 0
    num_ambiguous_pairs: int = 0

    def count(self, severity: Severity) -> int:
        """How many findings are of that severity."""
        return sum(number for kind, number in self.counts.items() if SEVERITIES[kind] == severity)

    def to_record(self) -> dict[str, Any]:
        """The JSON object of this report."""
        return {
            "files": [
                {"format": name, **file.to_record()}
                for name, file in zip(self.formats, self.files, strict=True)
            ],
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "infos": self.count("info"),
            "counts": dict(sorted(self.counts.items())),
            "pairs": self.num_pairs,
            "pairs_with_several_relations": self.num_ambiguous_pairs,
            "findings": [finding.to_record() for finding in self.findings],
        }


def check_files(paths: Sequence[str | Path], settings: CheckSettings | None = None) -> CheckReport:
    """Check files, each against itself, the settings and the files before it.

    A text of a later file that an earlier one has too is a leak: give the training file first.

    Args:
        paths: The files, training data first.
        settings: What to check against; None is the defaults.

    Raises:
        DataError: a file as a whole cannot be read, or no format fits.
        ConfigError: no file is given, or one twice.
    """
    resolved = [Path(path).resolve() for path in paths]
    if not paths or len(set(resolved)) < len(resolved):
        raise ConfigError(f"files: {[str(path) for path in paths]}: needed is each file once")
    with _Checker(settings or CheckSettings()) as checker:
        for path in paths:
            checker.read(Path(path))
        return checker.finish()


class _Checker:
    def __init__(self, settings: CheckSettings):
        self.settings = settings
        self.report = CheckReport()
        self.index = TextIndex(threshold=settings.near_threshold)
        self.pairs = PairTable()
        self.lines = array("q")
        self.labels = array("q")
        schema = settings.schema
        self.relations = None if schema is None else {item.name: item for item in schema}

    def __enter__(self) -> _Checker:
        return self

    def __exit__(self, *error: Any) -> None:
        self.index.__exit__(*error)

    def read(self, path: Path) -> None:
        name = self.settings.input_format
        known = detect_format(path) if name is None else get_format(name)
        problems = Problems(path, self._add_problem)
        statistics = FileStatistics(str(path))
        self.report.files.append(statistics)
        self.report.formats.append(known.name)
        self.index.start_file()
        for number, example in enumerate(known.read(path, problems), 1):
            # Documents of one folder have files of their own; among all they are told by number.
            has_lines = problems.line is not None and problems.path == path
            line = problems.line if has_lines and problems.line else number
            self.index.add(example.text)
            self.lines.append(line)
            self.labels.append(hash(frozenset(triplet.key for triplet in example.triplets)))
            statistics.add(example)
            self.pairs.add(example)
            self._inspect(example, statistics, str(problems.path), problems.line or number)

    def finish(self) -> CheckReport:
        for match in self.index.find_matches():
            self._add_match(match)
        self._add_relation_findings()
        self._add_direction_findings()
        for file in self.report.files:
            if file.num_examples and not file.num_empty:
                self._add("no_negatives", "no example is without triplets, so a model never learns "
                          "to answer that there are none", file.path)  # fmt: skip
        self.report.num_pairs = self.pairs.num_pairs
        self.report.num_ambiguous_pairs = self.pairs.num_ambiguous
        return self.report

    def _add(self, kind: str, message: str, path: str = "", line: int | None = None) -> None:
        self.report.counts[kind] += 1
        if self.report.counts[kind] <= self.settings.max_listed:
            self.report.findings.append(Finding(kind, message, path, line))

    def _add_problem(self, problem: Problem) -> None:
        kind = {
            "dropped record": "unreadable_record",
            "dropped triplet": "unreadable_triplet",
            "changed": "changed_by_reader",
        }[problem.action]
        self._add(kind, f"{problem.reason}: {problem.message}", problem.path, problem.line)

    def _inspect(self, example: Example, statistics: FileStatistics, path: str, line: int) -> None:
        limit = self.settings.max_item_characters
        for remark in inspect_example(example, max_item_characters=limit):
            self._add(remark.kind, remark.message, path, line)
        if self.relations is not None:
            self._judge(example, path, line)
        if self.settings.count_tokens is not None:
            self._measure(example, statistics, path, line)

    def _judge(self, example: Example, path: str, line: int) -> None:
        relations: dict[str, Relation] = self.relations or {}
        for triplet in example.triplets:
            relation = relations.get(triplet.relation)
            fit = judge_types(relation, triplet.subject_type, triplet.object_type)
            if fit == "unknown_relation":
                self._add(fit, f"relation {triplet.relation!r} is not in the schema", path, line)
            elif fit != "fits" and relation is not None:
                kind = "reversed_direction" if fit == "reversed" else "wrong_types"
                types = " or ".join(f"{one} -> {other}" for one, other in relation.types)
                self._add(
                    kind,
                    f"{triplet.key} goes {triplet.subject_type or '?'} -> "
                    f"{triplet.object_type or '?'}; the schema has {types}",
                    path,
                    line,
                )

    def _measure(self, example: Example, statistics: FileStatistics, path: str, line: int) -> None:
        count, settings = self.settings.count_tokens, self.settings
        if count is None:
            return
        prompt, target = count(example)
        statistics.prompt_lengths[prompt] += 1
        statistics.target_lengths[target] += 1
        for name, tokens, limit in (
            ("prompt", prompt, settings.max_prompt_tokens),
            ("target", target, settings.max_target_tokens),
        ):
            if tokens > limit:
                message = f"the {name} has {tokens} tokens, more than {limit}"
                self._add("too_long_for_model", message, path, line)

    def _add_match(self, match: Match) -> None:
        own = self.report.files[self.index.get_file(match.index)].path
        other = self.report.files[self.index.get_file(match.other)].path
        place = f"{other}:{self.lines[match.other]}"
        line = self.lines[match.index]
        if match.kind == "near":
            kind = "leak_near" if match.is_leak else "near_duplicate"
            self._add(kind, f"the text is {match.similarity:.0%} that of {place}", own, line)
            return
        if match.is_leak:
            alike = "equal to" if match.kind == "exact" else "but for form equal to"
            self._add(f"leak_{match.kind}", f"the text is {alike} that of {place}", own, line)
            return
        self._add("duplicate_text", f"the text is that of {place} again", own, line)
        if self.labels[match.index] != self.labels[match.other]:
            message = f"the text is that of {place}, the triplets are not"
            self._add("contradictory_labels", message, own, line)

    def _add_relation_findings(self) -> None:
        totals: Counter[str] = Counter()
        for file in self.report.files:
            totals.update(file.relations)
        names = [name for name, _ in totals.most_common()]
        for one, other in find_similar_names(names):
            self._add(
                "similar_relation_names",
                f"relations {one!r} ({totals[one]}) and {other!r} ({totals[other]}) look alike",
            )
        for one, other, number, share in self.pairs.find_confusable():
            self._add(
                "confusable_relations",
                f"relations {one!r} and {other!r} share {number} (subject, object) pairs, "
                f"{share:.0%} of the rarer one's",
            )
        for name in names:
            if totals[name] < _RARE:
                self._add("rare_relation", f"relation {name!r} occurs {totals[name]} times")

    def _add_direction_findings(self) -> None:
        totals: Counter[tuple[str, TypePair]] = Counter()
        for file in self.report.files:
            totals.update(file.type_pairs)
        for (name, (one, other)), number in sorted(totals.items()):
            usual = totals[(name, (other, one))]
            if (
                one != other
                and usual + number >= _MIN_DIRECTION_TRIPLETS
                and number <= _MAX_MINORITY_SHARE * usual
            ):
                self._add(
                    "minority_direction",
                    f"relation {name!r} goes {one or '?'} -> {other or '?'} in {number} triplets "
                    f"and the other way round in {usual}",
                )
