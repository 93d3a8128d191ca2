from __future__ import annotations

import pytest

from tests.training.plan_cases import CARD, build_run
from tripletune.training.memory import Moment
from tripletune.training.plan import plan_run
from tripletune.training.plan_table import render_duration, render_plan
from tripletune.training.speed import find_typical_device

GIB = 2**30


@pytest.fixture
def plan():
    return plan_run(build_run(), CARD, available=24 * GIB)


def columns(line: str) -> list[str]:
    return line.split()


def test_table_shows_each_moment_part_by_part(plan):
    moment = Moment(4 * GIB, GIB, 2 * GIB, GIB // 2)
    object.__setattr__(plan, "generation", moment)
    lines = render_plan(plan).splitlines()
    assert lines[0] == "显存与时间计划:"
    assert columns(lines[1]) == ["模型", "LoRA", "激活值", "临时", "合计"]
    assert columns(lines[4]) == ["评估", "(抽取)", "4.00", "1.00", "2.00", "0.50", "7.50"]


def test_table_says_what_was_chosen_and_why(plan):
    shown = render_plan(plan)
    assert f"预计峰值 {plan.total / GIB:.2f} GiB，可用 22.08 GiB (共 24.00 GiB)" in shown
    assert f"微批次 {plan.batch_size} 条 (最多 {plan.row.tokens:,} tokens)" in shown
    assert f"= 有效批次 {plan.batch_size * plan.accumulation}" in shown
    assert f"梯度检查点 {plan.policy.checkpointed}/28 层" in shown
    assert shown.endswith(plan.reason)


def test_table_says_whose_speed_the_time_goes_by(plan):
    assert "估计，按本机实测的矩阵速度" in render_plan(plan)
    typical = plan_run(build_run(), find_typical_device(24), available=24 * GIB)
    assert "估计，按 RTX 3090 的速度" in render_plan(typical)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 秒"), (89, "89 秒"), (600, "10 分钟"), (5400, "1.5 小时"), (86400, "24.0 小时")],
)
def test_durations_are_shown_in_a_fitting_unit(seconds, shown):
    assert render_duration(seconds) == shown
