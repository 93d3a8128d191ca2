"""The records everything else passes around: `Span`, `Triplet`, `Example`, `Extraction`.

All of them are frozen and validated when they are made, so code that holds one need not check it
again. Their JSON form is one line:

```json
{"text": "…", "triplets": [{"subject": "…", "relation": "…", "object": "…"}]}
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tripletune.errors import DataError

__all__ = ["Example", "Extraction", "Span", "Triplet"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range of characters: `text[start:end]`.

    Raises:
        DataError: `start` is negative or `end` is not greater than `start`.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise DataError(
                f"span: [{self.start}, {self.end}) is not a range; need 0 <= start < end"
            )


@dataclass(frozen=True, slots=True)
class Triplet:
    """One fact: `(subject, relation, object)`.

    Two triplets are equal when subject, relation and object are equal character for character;
    types, further object slots, spans and confidence are annotations and do not take part, so
    that `set` gives the triplets of a text as scoring counts them.

    Attributes:
        subject: The 主体, as written in the text.
        relation: The 关系.
        object: The 客体, as written in the text.
        subject_type: Type of the subject, or "".
        object_type: Type of the object, or "".
        object_slots: Further object slots as (name, value) pairs in the order given
            (DuIE 2.0: `inArea`, `onDate`, ...).
        subject_span: Where the subject stands in the text, when known.
        object_span: Where the object stands in the text, when known.
        confidence: Probability that the triplet is right, from 0 to 1, when known.

    Raises:
        DataError: an item is not a string or holds nothing but white space, or the confidence is
            outside 0 to 1.

    Example:
        >>> Triplet("苹果公司", "总部地点", "库比蒂诺").key
        ('苹果公司', '总部地点', '库比蒂诺')
    """

    subject: str
    relation: str
    object: str
    subject_type: str = field(default="", compare=False)
    object_type: str = field(default="", compare=False)
    object_slots: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    subject_span: Span | None = field(default=None, compare=False)
    object_span: Span | None = field(default=None, compare=False)
    confidence: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("subject", "relation", "object"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise DataError(f"triplet {name}: {value!r} is not a string")
            if not value.strip():
                raise DataError(
                    f"triplet {name}: {value!r} is empty; every triplet needs all three"
                )
        if self.confidence is not None and not 0.0 <= self.confidence <= 1.0:
            raise DataError(f"triplet confidence: {self.confidence!r} is not between 0 and 1")

    @property
    def key(self) -> tuple[str, str, str]:
        """`(subject, relation, object)`, what two triplets are compared by."""
        return (self.subject, self.relation, self.object)

    @classmethod
    def from_record(cls, record: Any) -> Triplet:
        """The triplet that a JSON object describes; unknown keys are ignored.

        Raises:
            DataError: the value is no object, a field is missing, empty or of the wrong type.
        """
        if not isinstance(record, Mapping):
            raise DataError(f"triplet: {record!r} is not an object with subject, relation, object")
        missing = [name for name in ("subject", "relation", "object") if name not in record]
        if missing:
            raise DataError(
                f"triplet: field {missing[0]!r} is missing in "
                f"{json.dumps(record, ensure_ascii=False)}; needed are subject, relation, object"
            )
        slots = record.get("object_slots") or {}
        if not isinstance(slots, Mapping):
            raise DataError(f"triplet object_slots: {slots!r} is not an object of names and values")
        return cls(
            record["subject"],
            record["relation"],
            record["object"],
            subject_type=str(record.get("subject_type") or ""),
            object_type=str(record.get("object_type") or ""),
            object_slots=tuple((str(name), str(value)) for name, value in slots.items()),
            subject_span=_read_span(record, "subject_span"),
            object_span=_read_span(record, "object_span"),
            confidence=_read_confidence(record),
        )

    def to_record(self) -> dict[str, Any]:
        """The JSON object of this triplet; annotations that are not known are left out."""
        record: dict[str, Any] = {
            "subject": self.subject,
            "relation": self.relation,
            "object": self.object,
        }
        if self.subject_type:
            record["subject_type"] = self.subject_type
        if self.object_type:
            record["object_type"] = self.object_type
        if self.object_slots:
            record["object_slots"] = dict(self.object_slots)
        if self.subject_span is not None:
            record["subject_span"] = [self.subject_span.start, self.subject_span.end]
        if self.object_span is not None:
            record["object_span"] = [self.object_span.start, self.object_span.end]
        if self.confidence is not None:
            record["confidence"] = self.confidence
        return record


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its gold triplets (possibly none).

    Raises:
        DataError: the text is not a string or is empty.
    """

    text: str
    triplets: tuple[Triplet, ...] = ()
    id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DataError(f"text: {self.text!r} is not a string")
        if not self.text.strip():
            raise DataError(f"text: {self.text!r} is empty")

    @classmethod
    def from_record(cls, record: object) -> Example:
        """The example that a canonical JSON object describes; unknown keys are ignored.

        Raises:
            DataError: the value is no object, a field is missing, empty or of the wrong type.
        """
        if not isinstance(record, Mapping):
            raise DataError(f"record: {record!r} is not a JSON object")
        for name in ("text", "triplets"):
            if name not in record:
                raise DataError(f"record: field {name!r} is missing; needed are text and triplets")
        triplets = record["triplets"]
        if not isinstance(triplets, Sequence) or isinstance(triplets, str):
            raise DataError(f"triplets: {triplets!r} is not a list")
        identifier = record.get("id")
        return cls(
            record["text"],
            tuple(Triplet.from_record(triplet) for triplet in triplets),
            None if identifier is None else str(identifier),
        )

    def to_record(self) -> dict[str, Any]:
        """The canonical JSON object of this example."""
        record: dict[str, Any] = {} if self.id is None else {"id": self.id}
        record["text"] = self.text
        record["triplets"] = [triplet.to_record() for triplet in self.triplets]
        return record

    def to_json(self) -> str:
        """The canonical line, without its line feed; Chinese is not escaped."""
        return json.dumps(self.to_record(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Extraction:
    """A text and the triplets a model found in it.

    Attributes:
        text: The text as it was given.
        triplets: What was found, with spans and confidence where they are known.
        id: The record's id, when it had one.
        output: What the model wrote.
        problems: What had to be dropped from the output and why, in the order met.
    """

    text: str
    triplets: tuple[Triplet, ...] = ()
    id: str | None = None
    output: str = ""
    problems: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """The canonical JSON object; `problems` is present only when there are any."""
        record: dict[str, Any] = {} if self.id is None else {"id": self.id}
        record["text"] = self.text
        record["triplets"] = [triplet.to_record() for triplet in self.triplets]
        if self.problems:
            record["problems"] = list(self.problems)
        return record

    def to_json(self) -> str:
        """The canonical line, without its line feed; Chinese is not escaped."""
        return json.dumps(self.to_record(), ensure_ascii=False)


def _read_span(record: Mapping[str, Any], name: str) -> Span | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, Sequence) or len(value) != 2 or not all(type(v) is int for v in value):
        raise DataError(f"triplet {name}: {value!r} is not [start, end]")
    return Span(value[0], value[1])


def _read_confidence(record: Mapping[str, Any]) -> float | None:
    value = record.get("confidence")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"triplet confidence: {value!r} is not a number")
    return float(value)
