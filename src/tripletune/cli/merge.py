"""`tripletune merge`: an adapter and its base model as one plain model folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["merge"]

EXIT_FOUND = 1


class WeightDtype(str, Enum):
    """Dtype of the written weights."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def merge(
    output: Annotated[Path, typer.Option("--output", help="写入合并后模型的文件夹")],
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="适配器文件夹 (默认: output/ 下最近一次训练)")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="未量化的基础模型 (默认: 适配器中记录的模型)")
    ] = None,
    dtype: Annotated[
        WeightDtype | None, typer.Option("--dtype", help="权重精度 (默认: 与基础模型相同)")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="合并和比较所用的设备")] = "cpu",
    check: Annotated[
        bool, typer.Option("--check", help="用十个句子比较合并前后的输出 (不一致时退出码为 1)")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="替换已有的输出文件夹")] = False,
) -> None:
    """Merges an adapter into its unquantised base; exits with 1 when `--check` finds them apart."""
    from rich.console import Console

    from tripletune.cli.adapters import find_adapter
    from tripletune.cli.quiet import quiet_libraries
    from tripletune.extraction.loading import load_reading_settings
    from tripletune.models.merge import merge_adapter, plan_merge

    console = Console(highlight=False)
    plan = plan_merge(
        find_adapter(adapter),
        output,
        base=base,
        dtype=None if dtype is None else dtype.value,
        overwrite=overwrite,
    )
    quiet_libraries()
    console.print(f"适配器: {plan.adapter}", markup=False)
    console.print(f"基础模型: {plan.base} ({plan.dtype}, 未量化)", markup=False)
    console.print(
        f"需要磁盘空间: {plan.num_bytes / 2**30:.2f} GiB "
        f"(可用 {plan.num_free_bytes / 2**30:.2f} GiB)"
    )
    result = merge_adapter(plan, check=check, device=device)
    console.print(f"已写入: {plan.output}", markup=False)
    if load_reading_settings(plan.adapter).bidirectional_prompt:
        console.print(
            "注意: 训练时提示是双向阅读的 (--bidirectional_prompt)；其他程序单向阅读，结果会变差"
        )
    if result is None:
        return
    console.print(
        f"比较 {result.num_sentences} 个句子: 最大相对差 {result.max_difference:.2e} "
        f"(允许 {result.bound:.0e})，首选词相同 {result.num_same_choice}/{result.num_positions}"
    )
    if not result.passed:
        console.print("合并后的模型与适配器不一致；请用 --dtype float32 重新合并")
        raise typer.Exit(EXIT_FOUND)
