from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.errors import AdapterError, ConfigError, OutputError
from tripletune.extraction.calibration import (
    Calibrator,
    compute_expected_error,
    fit_calibrator,
    judge_confidences,
    load_calibrator,
    save_calibrator,
)
from tripletune.schema import Example, Extraction, Triplet

PREDICTIONS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def make_overconfident(count: int) -> tuple[list[float], list[bool]]:
    """Predictions that say p and are right with probability p squared."""
    chance = np.random.default_rng(3)
    raw = chance.uniform(0, 1, count)
    return raw.tolist(), (chance.uniform(0, 1, count) < raw**2).tolist()


def test_judge_confidences_tells_gold_from_others_and_counts_gold_once() -> None:
    right, wrong = Triplet("甲", "位于", "乙"), Triplet("甲", "位于", "丙")
    examples = [Example("甲位于乙。", (right, right)), Example("丁。", (wrong,))]
    extractions = [
        Extraction("甲位于乙。", (replace(wrong, confidence=0.2), replace(right, confidence=0.9))),
        Extraction("丁。", (replace(right, confidence=0.4), right)),
    ]
    confidences, is_correct, num_gold = judge_confidences(examples, extractions)
    assert confidences.tolist() == [0.2, 0.9, 0.4]
    assert is_correct.tolist() == [False, True, False]
    assert num_gold == 2


def test_compute_expected_error_weights_bins_by_size() -> None:
    confidences = np.array([0.95, 0.95, 0.95, 0.25])
    right = np.array([1.0, 1.0, 0.0, 0.0])
    expected = 0.75 * abs(0.95 - 2 / 3) + 0.25 * 0.25
    assert compute_expected_error(confidences, right) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_fit_calibrator_lowers_the_error_on_fresh_data(method: str) -> None:
    raw, right = make_overconfident(2000)
    fitted = fit_calibrator(raw[:1000], right[:1000], method=method)  # type: ignore[arg-type]
    fresh, judged = np.array(raw[1000:]), np.array(right[1000:], dtype=float)
    before = compute_expected_error(fresh, judged)
    after = compute_expected_error(fitted.apply_all(fresh), judged)
    assert before > 0.12
    assert after < 0.06
    assert fitted.error_after < fitted.error_before


def test_fit_calibrator_isotonic_pools_what_falls() -> None:
    fitted = fit_calibrator([0.1, 0.2, 0.3, 0.4], [False, True, False, True], method="isotonic")
    assert fitted.points == ((0.1, 0.0), (0.25, 0.5), (0.4, 1.0))
    assert fitted.apply(0.175) == pytest.approx(0.25)


@pytest.mark.parametrize(("count", "method"), [(299, "temperature"), (300, "isotonic")])
def test_fit_calibrator_chooses_by_the_amount_of_data(count: int, method: str) -> None:
    assert fit_calibrator(*make_overconfident(count)).method == method


@given(PREDICTIONS, st.sampled_from(["temperature", "isotonic"]))
def test_calibrator_rises_within_zero_and_one(
    predictions: list[tuple[float, bool]], method: str
) -> None:
    raw, right = zip(*predictions, strict=True)
    fitted = fit_calibrator(raw, right, method=method)  # type: ignore[arg-type]
    found = fitted.apply_all(np.linspace(0, 1, 21))
    assert (np.diff(found) >= -1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_load_calibrator_reads_what_was_saved(tmp_path: Path) -> None:
    fitted = fit_calibrator(*make_overconfident(400))
    save_calibrator(fitted, tmp_path)
    assert load_calibrator(tmp_path) == fitted


def test_votes_are_kept_and_files_without_them_are_of_one(tmp_path: Path) -> None:
    save_calibrator(fit_calibrator(*make_overconfident(40), votes=8), tmp_path)
    loaded = load_calibrator(tmp_path)
    assert loaded is not None
    assert loaded.votes == 8
    assert loaded.for_votes(8) is loaded
    path = tmp_path / "calibration.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["votes"]
    path.write_text(json.dumps(record), encoding="utf-8")
    older = load_calibrator(tmp_path)
    assert older is not None
    assert older.votes == 1


def test_load_calibrator_gives_none_without_file(tmp_path: Path) -> None:
    assert load_calibrator(tmp_path) is None


def test_load_calibrator_refuses_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"method": "x"}', encoding="utf-8")
    with pytest.raises(AdapterError, match=r"calibration\.json: is not a calibration \('points'"):
        load_calibrator(tmp_path)


def test_save_calibrator_reports_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/calibration\.json: cannot be written"):
        save_calibrator(Calibrator("temperature", ((1.0, 0.0),)), tmp_path / "none")


def test_fit_calibrator_refuses_no_predictions() -> None:
    with pytest.raises(ConfigError, match="0 confidences and 0 judgements"):
        fit_calibrator([], [])


def test_calibrator_refuses_an_unknown_method() -> None:
    with pytest.raises(ConfigError, match="method 'platt' with 1 points"):
        Calibrator("platt", ((1.0, 0.0),))  # type: ignore[arg-type]
