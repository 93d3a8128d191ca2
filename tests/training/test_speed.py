from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.plan_cases import CARD, CHATGLM
from tripletune.training.memory import Policy
from tripletune.training.speed import (
    DeviceSpeed,
    estimate_generation_seconds,
    estimate_training_seconds,
    find_typical_device,
)


@pytest.mark.parametrize(
    ("memory", "name"),
    [(6, "RTX 3070"), (12, "RTX 3060 12GB"), (24, "RTX 3090"), (80, "A100 80GB"), (141, "H200")],
)
def test_typical_device_has_about_that_memory(memory, name):
    device = find_typical_device(memory)
    assert (device.name, device.measured) == (name, False)


def test_training_time_by_hand():
    # Large rows: 2 passes of 2 operations a parameter and token at 74 % of the rate, and 2 readings
    # of the weights for each of 10 micro-batches.
    seconds = estimate_training_seconds(
        CHATGLM, Policy(0, compiled=True), CARD, tokens=80_000, micro_batches=10
    )
    parameters = 5_637_144_576
    products = 4 * parameters * 80_000 / (0.74 * 50e12)
    assert seconds == pytest.approx(products + 20 * 4.5 * parameters / 500e9)


def test_computing_again_is_two_thirds_of_a_pass():
    def time(depth):
        policy = Policy(depth, compiled=True)
        return estimate_training_seconds(CHATGLM, policy, CARD, tokens=8000, micro_batches=4)

    # Of 12 E² a block, all but the MLP's last 4 E².
    assert time(28) == pytest.approx((2 + 2 / 3) / 2 * time(0))
    assert time(14) == pytest.approx((2 + 1 / 3) / 2 * time(0))


def test_last_product_before_a_norm_is_computed_again():
    size = replace(CHATGLM, norms=(4, False))

    def time(depth):
        policy = Policy(depth, compiled=True)
        return estimate_training_seconds(size, policy, CARD, tokens=8000, micro_batches=4)

    assert time(28) == pytest.approx(1.5 * time(0))


def test_few_tokens_cost_the_starting_of_kernels():
    fast = DeviceSpeed("fast", 1e18, 1e15, measured=True)
    seconds = estimate_training_seconds(
        CHATGLM, Policy(0, compiled=False), fast, tokens=10, micro_batches=5
    )
    # 3 ms a block and pass, and 0.3 for its one adapted layer.
    assert seconds == pytest.approx(2 * 5 * 28 * 3.3e-3)
    compiled = estimate_training_seconds(
        CHATGLM, Policy(0, compiled=True), fast, tokens=10, micro_batches=5
    )
    assert compiled == pytest.approx(seconds / 2)


@pytest.mark.parametrize(
    ("row", "checkpointed", "compiled", "in_fp8", "rate"),
    [
        (8192, 0, True, False, 24_236),
        (4096, 28, True, False, 17_352),
        (5248, 28, True, False, 17_726),
        (8192, 0, True, True, 35_003),
    ],
)
def test_estimate_is_near_what_an_h100_measured(row, checkpointed, compiled, in_fp8, rate):
    # benchmarks/train_throughput.py: packed, packed-checkpointed, its rows of 5,248, packed-fp8.
    h100 = DeviceSpeed("H100", 778e12, 3.0e12, measured=True)
    policy = Policy(checkpointed, compiled=compiled)
    seconds = estimate_training_seconds(
        CHATGLM, policy, h100, tokens=10 * row, micro_batches=10, in_fp8=in_fp8
    )
    assert 10 * row / seconds == pytest.approx(rate, rel=0.01)


def test_estimate_of_what_is_not_compiled_is_near_what_an_h100_measured():
    # benchmarks/train_throughput.py: packed-uncompiled, 2026-11-24.
    h100 = DeviceSpeed("H100", 788e12, 3.0e12, measured=True)
    seconds = estimate_training_seconds(
        CHATGLM, Policy(0, compiled=False), h100, tokens=10 * 8192, micro_batches=10
    )
    assert 10 * 8192 / seconds == pytest.approx(22_900, rel=0.03)


def test_generation_takes_a_reading_of_the_weights_a_token():
    seconds = estimate_generation_seconds(CHATGLM, CARD, sentences=200, batch=10, answer=50)
    assert seconds == pytest.approx(1.2 * 50 * 20 * 4.5 * 5_637_144_576 / 500e9)
    one = estimate_generation_seconds(CHATGLM, CARD, sentences=2, batch=10, answer=50)
    assert one == pytest.approx(seconds / 20)
