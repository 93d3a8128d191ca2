"""What is wrong with one example, looked at on its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from rapidfuzz import fuzz

from tripletune.schema import Example, Triplet

__all__ = ["SEVERITIES", "TITLES", "Remark", "Severity", "find_nearest", "inspect_example"]

Severity = Literal["error", "warning", "info"]

SEVERITIES: dict[str, Severity] = {
    "unreadable_record": "error",
    "unreadable_triplet": "error",
    "leak_exact": "error",
    "leak_normalised": "error",
    "leak_near": "error",
    "contradictory_labels": "error",
    "unknown_relation": "error",
    "reversed_direction": "error",
    "wrong_types": "warning",
    "replacement_character": "warning",
    "control_character": "warning",
    "private_use_character": "warning",
    "invisible_character": "info",
    "surrounding_space": "warning",
    "long_item": "warning",
    "item_not_in_text": "warning",
    "repeated_triplet": "warning",
    "duplicate_text": "warning",
    "near_duplicate": "info",
    "subject_is_object": "info",
    "similar_relation_names": "warning",
    "confusable_relations": "info",
    "minority_direction": "warning",
    "rare_relation": "info",
    "too_long_for_model": "warning",
    "no_negatives": "info",
    "changed_by_reader": "info",
}
"""Every kind of finding and how serious it is."""

TITLES: dict[str, str] = {
    "unreadable_record": "读不了的记录",
    "unreadable_triplet": "读不了的三元组",
    "leak_exact": "泄漏：文本相同",
    "leak_normalised": "泄漏：文本只差写法",
    "leak_near": "泄漏：文本近似",
    "contradictory_labels": "同一文本标注矛盾",
    "unknown_relation": "关系不在模式中",
    "reversed_direction": "主客体方向反了",
    "wrong_types": "实体类型不符合模式",
    "replacement_character": "解码错误的字符",
    "control_character": "控制字符",
    "private_use_character": "私用区字符",
    "invisible_character": "不可见字符",
    "surrounding_space": "首尾有空白",
    "long_item": "过长的项",
    "item_not_in_text": "项不在文本中",
    "repeated_triplet": "重复的三元组",
    "duplicate_text": "重复的文本",
    "near_duplicate": "近似重复的文本",
    "subject_is_object": "主体与客体相同",
    "similar_relation_names": "名称相近的关系",
    "confusable_relations": "常在同一对实体上的关系",
    "minority_direction": "少数方向与多数相反",
    "rare_relation": "罕见的关系",
    "too_long_for_model": "超过模型长度",
    "no_negatives": "没有无三元组的样本",
    "changed_by_reader": "读取时改动",
}
"""Every kind of finding in a few Chinese words."""

_REPLACEMENT = re.compile("\ufffd|锟斤拷|烫烫烫|屯屯屯")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_ODD = re.compile(
    "|".join(pattern.pattern for pattern in (_REPLACEMENT, _CONTROL, _PRIVATE, _INVISIBLE))
)
_ODD_KINDS = (
    ("replacement_character", _REPLACEMENT, "signs of a wrong decoding"),
    ("control_character", _CONTROL, "a control character"),
    ("private_use_character", _PRIVATE, "a private-use character (an icon of some font)"),
    ("invisible_character", _INVISIBLE, "an invisible character"),
)
_MIN_NEAREST_SCORE = 60.0


class Remark(NamedTuple):
    """One thing that an example shows.

    Attributes:
        kind: A key of `SEVERITIES`.
        message: One sentence with the values.
    """

    kind: str
    message: str


def inspect_example(example: Example, *, max_item_characters: int = 60) -> Iterator[Remark]:
    """What can be said against an example, cheap checks first.

    Args:
        example: The example.
        max_item_characters: Subjects, relations and objects longer than this are remarked on.
    """
    text = example.text
    if _ODD.search(text) is not None:
        yield from _inspect_characters(text)
    if text[0].isspace() or text[-1].isspace():
        yield Remark("surrounding_space", f"text {_show(text)} begins or ends in white space")
    for triplet in example.triplets:
        if not _is_clean(triplet, text, max_item_characters):
            yield from _inspect_triplet(triplet, text, max_item_characters)
    if len(example.triplets) > 1:
        counts = Counter((triplet.key, triplet.object_slots) for triplet in example.triplets)
        for (key, _), number in counts.items():
            for _ in range(number - 1):
                yield Remark("repeated_triplet", f"triplet {key} is given twice")


def find_nearest(item: str, text: str) -> tuple[str, float] | None:
    """The part of the text that is most like an item, with a score to 100, or None.

    An occurrence in other letter case scores 99.

    Example:
        >>> find_nearest("java程序设计", "《Java程序设计》出版")
        ('Java程序设计', 99.0)
    """
    lowered = text.lower()
    place = lowered.find(item.lower())
    if place >= 0 and len(lowered) == len(text):
        return text[place : place + len(item)], 99.0
    found = fuzz.partial_ratio_alignment(item, text, score_cutoff=_MIN_NEAREST_SCORE)
    if found is None or found.src_end - found.src_start < len(item):
        return None
    return text[found.dest_start : found.dest_end], float(found.score)


def _inspect_characters(text: str) -> Iterator[Remark]:
    for kind, pattern, what in _ODD_KINDS:
        match = pattern.search(text)
        if match is not None:
            codes = " ".join(f"U+{ord(character):04X}" for character in match.group())
            yield Remark(kind, f"{what} ({codes}) at character {match.start()} of {_show(text)}")


def _is_clean(triplet: Triplet, text: str, max_item_characters: int) -> bool:
    """Whether `_inspect_triplet` has nothing to say, which is so for nearly all, found faster."""
    subject, relation, object_ = triplet.subject, triplet.relation, triplet.object
    return (
        subject in text
        and object_ in text
        and subject != object_
        and max(len(subject), len(relation), len(object_)) <= max_item_characters
        and subject.strip() == subject
        and relation.strip() == relation
        and object_.strip() == object_
    )


def _inspect_triplet(triplet: Triplet, text: str, max_item_characters: int) -> Iterator[Remark]:
    for name, item in zip(("subject", "relation", "object"), triplet.key, strict=True):
        if item[0].isspace() or item[-1].isspace():
            yield Remark("surrounding_space", f"{name} {item!r} begins or ends in white space")
        if len(item) > max_item_characters:
            yield Remark(
                "long_item",
                f"{name} {_show(item)} has {len(item)} characters, more than {max_item_characters}",
            )
        if name != "relation" and item not in text:
            yield _describe_absent(name, item, text)
    if triplet.subject == triplet.object:
        yield Remark("subject_is_object", f"subject and object are both {triplet.subject!r}")


def _describe_absent(name: str, item: str, text: str) -> Remark:
    nearest = find_nearest(item, text)
    offer = f"; nearest is {nearest[0]!r}" if nearest is not None else ""
    return Remark("item_not_in_text", f"{name} {item!r} is not in {_show(text)}{offer}")


def _show(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
