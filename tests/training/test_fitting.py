from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.plan_cases import CARD, CHATGLM, build_run
from tests.training.small_runs import (
    SmallRun,
    adapter_bytes,
    build_small_settings,
    read_history,
    train,
)
from tests.training.test_run_state import STATE
from tripletune.config import TrainingSettings
from tripletune.errors import ResourceError
from tripletune.training import fitting as area
from tripletune.training.fitting import GpuFit, describe_run
from tripletune.training.plan import RunPlan

GB = 10**9
GIB = 2**30


class Trials:
    """Peaks that a GPU would measure, one a trial; None is memory that did not suffice."""

    def __init__(self, *peaks: Any) -> None:
        self.peaks = list(peaks)
        self.batches: list[Any] = []
        self.used: list[RunPlan] = []

    def __call__(self, model: Any, batch: Any) -> int | None:
        self.batches.append(batch)
        peak = self.peaks.pop(0)
        return peak(self.used[-1]) if callable(peak) else peak


def correct(fit: GpuFit, trials: Trials) -> RunPlan:
    return fit.correct(
        None,
        lambda indices: {"examples": tuple(indices)},
        use_plan=trials.used.append,
        trial=trials,
    )


@pytest.fixture
def fit() -> GpuFit:
    return GpuFit(build_run(batch_size=8), CARD, available=24 * GB)


def test_trial_is_of_the_largest_micro_batch_and_replaces_the_prediction(fit):
    planned = fit.plan
    trials = Trials(10 * GB)
    chosen = correct(fit, trials)
    assert trials.batches == [{"examples": planned.examples}]
    assert trials.used == [planned]
    # The optimizer's state comes at the first step.
    assert chosen.training.total == 10 * GB + 8 * CHATGLM.trainable
    assert fit.plan == chosen


def test_trial_is_logged_beside_the_prediction(fit, caplog):
    caplog.set_level(logging.INFO, "tripletune")
    planned = fit.plan
    correct(fit, Trials(10 * GIB - planned.optimizer_bytes))
    (said,) = caplog.messages
    assert said == (
        f"试算最大的微批次 ({planned.row.tokens:,} tokens): 显存峰值 10.00 GiB，"
        f"预计 {planned.training.total / GIB:.2f} GiB"
    )


def test_trial_without_memory_takes_a_smaller_plan_and_tries_that(fit, caplog):
    planned = fit.plan
    trials = Trials(None, None, 9 * GB)
    correct(fit, trials)
    sizes = [plan.training.total / plan.row.tokens for plan in trials.used]
    needs = [(plan.batch_size, -plan.policy.checkpointed) for plan in trials.used]
    assert len(sizes) == 3
    assert needs == sorted(needs, reverse=True)
    assert needs[0] > needs[-1]
    assert all(
        plan.batch_size * plan.accumulation == planned.batch_size * planned.accumulation
        for plan in trials.used
    )
    assert sum("显存不足" in message for message in caplog.messages) == 2


@pytest.mark.parametrize("elsewhere", [None, 23 * GB])
def test_trial_of_another_process_counts(fit, monkeypatch, elsewhere):
    """One process that has no memory, or little, gives all of them the smaller plan."""
    others = iter([elsewhere, 9 * GB])
    monkeypatch.setattr(area, "gather_over_ranks", lambda value: [value, next(others)])
    planned = fit.plan
    trials = Trials(10 * GB, 9 * GB)
    correct(fit, trials)
    assert len(trials.used) == 2
    first, second = trials.used
    assert first == planned
    assert (second.batch_size, -second.policy.checkpointed) < (
        first.batch_size,
        -first.policy.checkpointed,
    )


def test_processes_plan_for_the_fullest_card_and_one_speed(monkeypatch):
    slow = replace(CARD, name="other", flops=CARD.flops / 2)
    monkeypatch.setattr(area, "measure_device", lambda device: slow)
    monkeypatch.setattr(area, "find_available_bytes", lambda device: 24 * GB)
    monkeypatch.setattr(area, "gather_over_ranks", lambda value: [(CARD, 30 * GB), value])
    here = GpuFit.on_device(build_run(batch_size=8), "cuda:1")
    assert here.plan == GpuFit(build_run(batch_size=8), CARD, available=24 * GB).plan


def test_trial_that_needs_more_than_is_usable_plans_again_with_what_it_showed(fit):
    def twice(plan: RunPlan) -> int:
        fixed = plan.training.weights + plan.training.adapter
        return fixed + 2 * (plan.training.kept + plan.training.passing)

    def exactly(plan: RunPlan) -> int:
        return plan.training.total - plan.optimizer_bytes

    trials = Trials(twice, exactly)
    chosen = correct(fit, trials)
    assert 2.0 <= fit.run.scale < 2.05
    assert chosen.total <= chosen.usable
    assert len(trials.used) == 2


def test_trials_that_never_fit_end():
    fit = GpuFit(build_run(batch_size=8), CARD, available=24 * GB)
    with pytest.raises(ResourceError, match="memory"):
        correct(fit, Trials(*[None] * 20))


def test_device_that_does_not_count_keeps_the_prediction(fit):
    planned = fit.plan
    assert correct(fit, Trials(0)) == planned


@pytest.mark.parametrize(("recorded", "expected"), [(4, 4), (2, 2), (5, 32)])
def test_continued_run_takes_the_micro_batch_of_its_checkpoint(tmp_path, recorded, expected):
    settings = TrainingSettings(batch_size=8)
    fit = GpuFit(build_run(prompt=60, answer=30, settings=settings), CARD, available=80 * GB)
    state = json.dumps({**STATE, "batch_size": recorded})
    (tmp_path / "run_state.json").write_text(state, encoding="utf-8")
    fit.continue_from(settings, tmp_path)
    assert fit.plan.batch_size == expected


def test_continued_run_whose_micro_batch_no_longer_fits_takes_another(tmp_path, caplog):
    settings = TrainingSettings(batch_size=16, gradient_checkpointing=False)
    fit = GpuFit(build_run(settings=settings), CARD, available=9 * GB)
    state = json.dumps({**STATE, "batch_size": 16})
    (tmp_path / "run_state.json").write_text(state, encoding="utf-8")
    fit.continue_from(settings, tmp_path)
    assert fit.plan.batch_size < 16
    assert "检查点的微批次 16 条放不进显存" in caplog.text


def describe(run: SmallRun) -> Any:
    run.prepare_datasets()
    return describe_run(
        run.settings,
        run.tokenizer,
        training=run._train_set.examples,
        validation=run._validation_set.examples,
        scored_texts=[example.text for example in run.validation_examples[:5]],
    )


def test_run_is_described_from_its_data_and_configuration(tmp_path, tiny_model_dir):
    run = SmallRun(build_small_settings(tmp_path, tiny_model_dir))
    planned = describe(run)
    assert planned.training.tokens.tolist() == run._train_set.lengths
    prompts = [run._validation_set[index].num_prompt_tokens for index in range(5)]
    assert (planned.longest_prompt, planned.sentences) == (max(prompts), 5)
    assert planned.size.layers == 2
    assert planned.packing
    assert planned.compiled is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"load_in_4bit": True}, None),
        ({"load_in_4bit": True, "compute": "fp8"}, False),
    ],
)
def test_weights_may_be_kept_where_products_do_not_need_them_packed(
    tmp_path, tiny_model_dir, changes, expected
):
    run = SmallRun(build_small_settings(tmp_path, tiny_model_dir))
    run.prepare_datasets()
    run.settings = run.settings.changed(**changes)
    assert describe(run).keeps_weights is expected


def test_what_is_compiled_or_kept_stays_so_when_the_plan_is_made_again():
    run = build_run(compiled=None, keeps_weights=None, num_epochs=1)
    fit = GpuFit(run, CARD, available=80 * GB)
    assert fit.run.compiled is fit.plan.policy.compiled
    assert fit.run.keeps_weights is fit.plan.keeps_weights is True


class PlannedOnCpu(SmallRun):
    """A run with a plan and a trial, which on a CPU measures nothing but does everything."""

    def plan(self, available: int = 80 * GB) -> RunPlan:
        self._fit = GpuFit(describe(self), CARD, available=available)
        plan: RunPlan = self._fit.plan
        return plan


@pytest.fixture(scope="module")
def unplanned(tmp_path_factory, tiny_model_dir) -> Path:
    settings = build_small_settings(tmp_path_factory.mktemp("unplanned"), tiny_model_dir)
    train(settings.changed(packing=True))
    return settings.output_dir


def planned_settings(folder: Path, model_dir: Path) -> TrainingSettings:
    return build_small_settings(folder, model_dir, packing=True, join_micro_batches=False)


def test_trial_changes_nothing_of_what_follows(tmp_path, tiny_model_dir, unplanned):
    settings = planned_settings(tmp_path, tiny_model_dir)
    run = PlannedOnCpu(settings)
    assert run.plan().policy.checkpointed == 0
    run.train()
    assert read_history(settings.output_dir) == read_history(unplanned)
    assert adapter_bytes(settings.output_dir) == adapter_bytes(unplanned)
    record = json.loads((settings.output_dir / "run.json").read_text(encoding="utf-8"))
    assert record["result"]["plan"] == run._fit.plan.summary()


def test_recomputed_blocks_end_in_the_same_adapter(tmp_path, tiny_model_dir, unplanned):
    settings = planned_settings(tmp_path, tiny_model_dir)
    run = PlannedOnCpu(settings)
    available = int((run.plan().training.total - 1) / 0.92)
    assert run.plan(available).policy.checkpointed > 0
    run.train()
    assert adapter_bytes(settings.output_dir) == adapter_bytes(unplanned)


def test_joined_micro_batches_learn_from_the_same_examples(tmp_path, tiny_model_dir):
    settings = build_small_settings(tmp_path, tiny_model_dir, packing=True, lora_dropout=0.0)
    apart = train(settings.changed(output_dir=tmp_path / "apart"))
    run = PlannedOnCpu(settings)
    run.plan()
    run.train()
    assert (run._fit.plan.batch_size, run._fit.plan.accumulation) == (4, 1)
    losses, expected = (
        np.array([record["loss"] for record in trainer.state.log_history if "loss" in record])
        for trainer in (run.trainer, apart)
    )
    assert run.trainer.state.global_step == apart.state.global_step
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_run_is_planned_before_its_model_is_loaded(tmp_path, tiny_model_dir, monkeypatch, capfd):
    monkeypatch.setattr(
        GpuFit, "on_device", lambda run, device: GpuFit(run, CARD, available=24 * GB)
    )
    run = SmallRun(build_small_settings(tmp_path, tiny_model_dir))
    load = SmallRun._load_adapted

    def loaded_after_the_plan(self: SmallRun, device: Any) -> Any:
        run._plan_ahead("cuda")
        return load(self, device)

    monkeypatch.setattr(SmallRun, "_load_adapted", loaded_after_the_plan)
    run.prepare_datasets()
    assert "显存与时间计划:" in capfd.readouterr().out
    assert run._fit.run.sentences == run.num_scored
    assert run._train_set.lengths == run._fit.run.training.tokens.tolist()


def test_run_that_does_not_fit_loads_no_model(tmp_path, tiny_model_dir, monkeypatch):
    monkeypatch.setattr(GpuFit, "on_device", lambda run, device: GpuFit(run, CARD, available=GB))
    settings = build_small_settings(tmp_path, tiny_model_dir, max_target_length=10**7)
    run = SmallRun(settings)
    monkeypatch.setattr(SmallRun, "_load_adapted", lambda self, device: run._plan_ahead(device))
    with pytest.raises(ResourceError, match="max_target_length"):
        run.prepare_datasets()
    assert run.model is None
