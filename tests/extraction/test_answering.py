from __future__ import annotations

from typing import Any

import pytest

from tests.extraction.builders import build_sentencepiece, build_small_chatglm
from tripletune.extraction.answering import answer_questions
from tripletune.extraction.extractor import Extractor


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    tokenizer = build_sentencepiece(tmp_path_factory.mktemp("vocabulary"))
    return build_small_chatglm(tokenizer), tokenizer


def build(parts: tuple[Any, Any], **options: Any) -> Extractor:
    values = {"relations": ["位于", "总部地点"], "constrained": True, "max_new_tokens": 20}
    return Extractor(*parts, **{**values, **options})


@pytest.mark.parametrize("options", [{}, {"votes": 3}, {"constrained": False}])
def test_each_question_is_told_of_once(parts: tuple[Any, Any], options: dict[str, Any]) -> None:
    extractor = build(parts, batch_size=2, **options)
    (part,) = extractor.find_parts(extractor.schema)
    questions = [(text, part) for text in ("甲位于乙。", "丙", "总部地点丁", "戊己", "庚")]
    told: list[int] = []
    found = answer_questions(extractor, questions, told.append)
    assert sorted(told) == [0, 1, 2, 3, 4]
    assert [extraction.text for extraction in found] == [text for text, _ in questions]


def test_room_is_found_once_for_all_that_is_asked(
    parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = iter([10**9, 7])
    monkeypatch.setattr("tripletune.extraction.answering.find_room", lambda model: next(rooms))
    extractor = build(parts)
    (part,) = extractor.find_parts(extractor.schema)
    for _ in range(2):
        answer_questions(extractor, [("甲位于乙。", part)])
        assert extractor.options.room == 10**9
