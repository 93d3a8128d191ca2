from __future__ import annotations

import pytest
import torch

from tests.extraction.scripted_guide import ScriptedGuide
from tripletune.errors import ConfigError
from tripletune.extraction.generation_rows import (
    Generated,
    GenerationOptions,
    Row,
    choose_for_rows,
    prepare_guides,
)

END = 9


def make_row(guide: ScriptedGuide | None = None, *, limit: int = 3, seed: int | None = None) -> Row:
    return Row(0, guide, END, limit, None, seed)


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"max_new_tokens": 0}])
def test_limits_below_one_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="need at least 1"):
        GenerationOptions(end_token_id=END, pad_token_id=3, **changes)


def test_row_is_finished_by_the_end_token_which_is_scored_but_not_written() -> None:
    row = make_row()
    assert row.take(5, -0.5) is None
    assert row.take(END, -0.25) == Generated((5,), (-0.5, -0.25), is_complete=True)


def test_row_is_finished_by_its_limit() -> None:
    row = make_row(limit=2)
    assert row.take(5, -0.5) is None
    assert row.take(6, -0.5) == Generated((5, 6), (-0.5, -0.5), is_complete=False)


def test_row_is_finished_when_nothing_is_allowed() -> None:
    assert make_row().take(-1, 0.0) == Generated((), (), is_complete=True)


def test_tokens_without_a_choice_are_taken_at_once() -> None:
    guide = ScriptedGuide([[5], [6], [7, 8]])
    row = make_row(guide, limit=9)
    assert row.take_forced() is None
    assert (row.token_ids, guide.taken) == ([5, 6], [5, 6])


def test_each_row_chooses_among_what_its_guide_allows() -> None:
    logits = torch.tensor([[0.0, 9.0, 1.0, 2.0], [5.0, 0.0, 3.0, 4.0], [0.0, 0.0, 0.0, 9.0]])
    rows = [make_row(ScriptedGuide([[2, 3]])), make_row(ScriptedGuide([[1, 2]]))]
    tokens, scores = choose_for_rows(logits, rows, places=[1, 0]).read()
    assert tokens == [3, 1]
    expected = torch.tensor([[3.0, 4.0], [1.0, 9.0]]).log_softmax(-1).max(-1).values
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_rows_without_guides_choose_among_all_tokens() -> None:
    logits = torch.tensor([[0.0, 9.0], [5.0, 0.0]])
    assert choose_for_rows(logits, [make_row(), make_row()]).read()[0] == [1, 0]


def test_drawn_tokens_are_allowed_ones() -> None:
    logits = torch.zeros(1, 8)
    drawn = {
        choose_for_rows(logits, [make_row(ScriptedGuide([[2, 6]]), seed=seed)]).read()[0][0]
        for seed in range(40)
    }
    assert drawn == {2, 6}


def test_guides_are_prepared_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[ScriptedGuide] = []
    monkeypatch.setattr(ScriptedGuide, "prepare", lambda self: prepared.append(self))
    guide = ScriptedGuide([])
    prepare_guides([make_row(), make_row(guide)])
    assert prepared == [guide]
