from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.plan_cases import CARD, CHATGLM, build_lengths, build_run
from tripletune.config import PRESET_VALUES, TrainingSettings
from tripletune.errors import ResourceError
from tripletune.training.memory import Row, predict_generation, predict_training
from tripletune.training.plan import plan_run
from tripletune.training.speed import DeviceSpeed

GB = 10**9


def plan(available_gb, **changes):
    return plan_run(build_run(**changes), CARD, available=int(available_gb * GB))


def test_roomy_card_recomputes_nothing():
    chosen = plan(80, batch_size=4, join_micro_batches=False)
    assert chosen.policy.checkpointed == 0
    assert chosen.reason.startswith("显存充足，不需要梯度检查点")
    assert chosen.row == Row(4 * 768, 4 * 256)
    assert chosen.training == predict_training(CHATGLM, chosen.row, chosen.policy)


def test_total_is_the_fullest_of_the_three_moments():
    chosen = plan(80, sentences=64)
    assert chosen.total == max(
        chosen.training.total, chosen.evaluation.total, chosen.generation.total
    )
    assert chosen.generation == predict_generation(
        CHATGLM, batch=128, sentences=64, prompt=512, answer=256
    )


@pytest.mark.parametrize("available", [6, 7, 8, 10, 12, 16, 24])
def test_plan_never_needs_more_than_is_usable(available):
    chosen = plan(available, batch_size=1, gradient_accumulation_steps=16)
    assert chosen.total <= chosen.usable == int(0.92 * available * GB)


@pytest.mark.parametrize("asked", [(1, 16), (4, 4), (16, 1), (3, 5)])
def test_effective_batch_stays(asked):
    batch_size, accumulation = asked
    for available in (6, 9, 24):
        chosen = plan(available, batch_size=batch_size, gradient_accumulation_steps=accumulation)
        assert chosen.batch_size * chosen.accumulation == batch_size * accumulation


def test_smaller_card_takes_smaller_batches_or_recomputes_more():
    depths = [
        plan(gb, batch_size=1, gradient_accumulation_steps=1).policy.checkpointed
        for gb in (8, 6.4, 6, 5.6)
    ]
    assert depths == sorted(depths)
    assert depths[0] == 0 < depths[-1]


def test_micro_batch_is_lowered_before_everything_is_recomputed():
    chosen = plan(12, batch_size=16, gradient_accumulation_steps=1)
    assert chosen.batch_size < 16
    assert "减为" in chosen.reason
    assert "有效批次不变" in chosen.reason


def test_short_sentences_are_joined_into_larger_micro_batches():
    short = {"prompt": 60, "answer": 30, "batch_size": 1, "gradient_accumulation_steps": 16}
    joined = plan(24, **short)
    assert joined.batch_size == 16
    assert "由 1 增为 16 条" in joined.reason
    assert joined.training_seconds < plan(24, join_micro_batches=False, **short).training_seconds


def test_joining_can_be_forbidden_and_lowering_goes_on():
    assert plan(80, batch_size=2, join_micro_batches=False).batch_size == 2
    lowered = plan(7, batch_size=16, gradient_accumulation_steps=1, join_micro_batches=False)
    assert lowered.batch_size < 16


def test_checkpointing_that_is_forbidden_is_not_chosen():
    chosen = plan(8, batch_size=4, gradient_checkpointing=False)
    assert chosen.policy.checkpointed == 0
    with pytest.raises(ResourceError, match="use --gradient_checkpointing true"):
        plan(5.8, batch_size=4, gradient_checkpointing=False)


def test_offloading_goes_with_recomputing_every_block():
    chosen = plan(80, offload_activations=True)
    assert (chosen.policy.checkpointed, chosen.policy.offload) == (28, True)


def test_several_gpus_keep_the_micro_batch():
    assert plan(80, batch_size=2, num_ranks=2).batch_size == 2


def test_continued_run_keeps_its_micro_batch():
    run = replace(build_run(batch_size=2, gradient_accumulation_steps=8), fixed_batch_size=4)
    assert plan_run(run, CARD, available=80 * GB).batch_size == 4


def test_generation_batch_is_what_fits_beside_the_model():
    assert [plan(gb).generation_batch for gb in (80, 24, 11, 8)] == [128, 16, 8, 4]


def test_extraction_takes_more_than_16_at_once_only_in_the_memory_of_training():
    chosen = plan(24)
    assert chosen.generation.total <= chosen.training.total
    twice = predict_generation(
        CHATGLM, batch=2 * chosen.generation_batch, sentences=10**6, prompt=512, answer=256
    )
    assert chosen.training.total < twice.total < chosen.usable


def test_nothing_fits_says_how_much_is_missing_and_what_helps():
    with pytest.raises(ResourceError) as caught:
        plan(5, load_in_4bit=False)
    message = str(caught.value)
    assert "usable on this GPU: 4.28 GiB" in message or "4.28 GiB usable" in message
    assert "--max_source_length" in message


def test_training_that_does_not_fit_names_the_smallest_micro_batch():
    huge = {"prompt": 3000, "answer": 1000, "max_source_length": 3000, "max_target_length": 16}
    with pytest.raises(ResourceError, match=r"micro-batch of 1 \(4096 tokens\).*the model takes"):
        plan(5.6, longest_prompt=100, **huge)


def test_evaluation_batch_is_halved_until_it_fits():
    assert plan(80, eval_batch_size=64).eval_batch_size == 64
    assert plan(6.2, eval_batch_size=64, batch_size=1).eval_batch_size < 64


def test_trial_that_needed_more_plans_for_more():
    run = build_run(batch_size=4)
    before = plan_run(run, CARD, available=9 * GB)
    after = plan_run(replace(run, scale=1.5), CARD, available=9 * GB)
    assert after.total <= after.usable
    assert (after.batch_size, -after.policy.checkpointed) < (
        before.batch_size,
        -before.policy.checkpointed,
    )


def test_measured_peak_takes_the_place_of_the_predicted_one():
    chosen = plan(80)
    measured = chosen.with_measured(chosen.training.total + 5)
    assert measured.training.total == chosen.training.total + 5


def test_plan_is_applied_to_the_settings():
    settings = TrainingSettings(batch_size=1, gradient_accumulation_steps=16)
    chosen = plan_run(build_run(prompt=60, answer=30, settings=settings), CARD, available=24 * GB)
    applied = chosen.apply(settings)
    assert (applied.batch_size, applied.gradient_accumulation_steps) == (16, 1)
    assert applied.changed(batch_size=1, gradient_accumulation_steps=16) == settings


def test_time_counts_every_evaluation():
    settings = TrainingSettings(batch_size=4, num_epochs=3, eval_steps=4, save_steps=4)
    once, often = (
        plan_run(build_run(settings=s), CARD, available=80 * GB).evaluation_seconds
        for s in (settings.changed(eval_steps=100, save_steps=100), settings)
    )
    # 12 steps: 2 evaluations before and after, 3 between.
    assert often == pytest.approx(once * 5 / 2)


FAST = DeviceSpeed("fast", 1e18, 1e15, measured=True)


@pytest.mark.parametrize(("num_epochs", "expected"), [(40, False), (42, True)])
def test_blocks_are_compiled_where_the_run_wins_back_the_time(num_epochs, expected):
    # Each of 8 rows of an epoch takes 2 x 28 x 3.3 ms to start, half of that compiled: 0.0924 s
    # saved, 29.6 s in 40 epochs and 31.0 s in 42.
    run = build_run(compiled=None, batch_size=8, gradient_accumulation_steps=1)
    run = replace(run, settings=run.settings.changed(num_epochs=num_epochs))
    plan = plan_run(run, FAST, available=200 * GB)
    assert plan.policy.compiled is expected
    assert plan == plan_run(replace(run, compiled=expected), FAST, available=200 * GB)


def test_a_run_that_fits_only_compiled_is_compiled():
    limits = {"batch_size": 1, "gradient_checkpointing": False, "join_micro_batches": False}
    settings = TrainingSettings(**limits, gradient_accumulation_steps=1, num_epochs=1)
    run = build_run(settings=settings, sentences=1, compiled=None)
    compiled, plain = (
        plan_run(replace(run, compiled=way), FAST, available=200 * GB) for way in (True, False)
    )
    assert compiled.total < plain.total
    assert not plan_run(run, FAST, available=200 * GB).policy.compiled
    between = int((compiled.total + plain.total) / 2 / 0.92)
    assert plan_run(run, FAST, available=between).policy.compiled


def test_weights_are_kept_where_the_run_leaves_a_fifth_of_the_memory_with_them():
    run = build_run(batch_size=8, keeps_weights=None)
    plain = plan_run(replace(run, keeps_weights=False), CARD, available=80 * GB)
    kept = plan_run(run, CARD, available=80 * GB)
    assert kept == plan_run(replace(run, keeps_weights=True), CARD, available=80 * GB)
    assert (kept.keeps_weights, plain.keeps_weights) == (True, False)
    assert kept.total - plain.total == 2 * CHATGLM.frozen_parameters
    assert kept.reason == f"{plain.reason}；保留解压后的权重，不必每次乘积再解压"
    enough = int(kept.total / 0.8 / 0.92)
    for available, keeps in ((enough + GB, True), (enough - GB, False)):
        plan = plan_run(run, CARD, available=available)
        assert (plan.policy, plan.batch_size) == (plain.policy, plain.batch_size)
        assert plan.keeps_weights is keeps


def test_weights_are_not_kept_at_the_price_of_recomputing():
    run = build_run(batch_size=8, keeps_weights=None)
    for gigabytes in (6, 8, 12, 16, 24):
        plain = plan_run(replace(run, keeps_weights=False), CARD, available=gigabytes * GB)
        assert plan_run(run, CARD, available=gigabytes * GB) == plain


@pytest.mark.parametrize(("preset", "gigabytes"), [("small", 6), ("medium", 12), ("large", 24)])
@pytest.mark.parametrize("compiled", [False, True])
def test_presets_fit_their_cards_with_the_longest_texts(preset, gigabytes, compiled):
    settings = TrainingSettings(
        **{**PRESET_VALUES[preset], "max_source_length": 512, "max_target_length": 256}
    )
    size = replace(CHATGLM, trainable=CHATGLM.trainable * settings.lora_r // 8)
    lengths = build_lengths(512, 256, 256)
    run = build_run(
        settings=settings, size=size, training=lengths, validation=lengths, compiled=compiled
    )
    chosen = plan_run(run, CARD, available=gigabytes * GB)
    assert chosen.total <= 0.92 * gigabytes * GB
    assert chosen.batch_size * chosen.accumulation == settings.effective_batch_size
