"""A run's plan as a small table, in Chinese, as it is printed before the first step."""

from __future__ import annotations

import unicodedata

from tripletune.training.memory import Moment
from tripletune.training.plan import RunPlan

__all__ = ["render_duration", "render_plan"]

_GIB = 2**30


def render_plan(plan: RunPlan) -> str:
    """What is needed where, what was chosen and why, and how long it takes."""
    depth = plan.policy.checkpointed
    moments = {
        "训练": plan.training,
        "评估 (损失)": plan.evaluation,
        "评估 (抽取)": plan.generation,
    }
    speed = plan.tokens / max(plan.training_seconds, 1e-9)
    source = "按本机实测的矩阵速度" if plan.device.measured else f"按 {plan.device.name} 的速度"
    lines = [
        "显存与时间计划:",
        _row("", "模型", "LoRA", "激活值", "临时", "合计"),
        *(_moment_row(name, moment) for name, moment in moments.items()),
        f"  预计峰值 {plan.total / _GIB:.2f} GiB，可用 {plan.usable / _GIB:.2f} GiB "
        f"(共 {plan.available / _GIB:.2f} GiB)",
        f"  微批次 {plan.batch_size} 条 (最多 {plan.row.tokens:,} tokens) x 梯度累积 "
        f"{plan.accumulation} = 有效批次 {plan.batch_size * plan.accumulation}；"
        f"梯度检查点 {depth}/{plan.layers} 层；评估批次 {plan.eval_batch_size}，"
        f"抽取批次 {plan.generation_batch}",
        f"  时间 (估计，{source}): 训练 {render_duration(plan.training_seconds)} "
        f"({plan.tokens:,} tokens, {speed:,.0f} tokens/s)，"
        f"评估 {render_duration(plan.evaluation_seconds)}",
        f"  {plan.reason}",
    ]
    return "\n".join(lines)


def render_duration(seconds: float) -> str:
    """Seconds as seconds, minutes or hours.

    Example:
        >>> render_duration(5400)
        '1.5 小时'
    """
    if seconds < 90:
        return f"{seconds:.0f} 秒"
    if seconds < 5400:
        return f"{seconds / 60:.0f} 分钟"
    return f"{seconds / 3600:.1f} 小时"


def _moment_row(name: str, moment: Moment) -> str:
    sizes = (moment.weights, moment.adapter, moment.kept, moment.passing, moment.total)
    return _row(name, *(f"{size / _GIB:.2f}" for size in sizes))


def _row(name: str, *cells: str) -> str:
    return "  " + _pad(name, 14, left=True) + "".join(_pad(cell, 8) for cell in cells)


def _pad(text: str, width: int, *, left: bool = False) -> str:
    """Padded to a number of columns; a Chinese character takes two."""
    columns = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    gap = " " * max(0, width - columns)
    return text + gap if left else gap + text
