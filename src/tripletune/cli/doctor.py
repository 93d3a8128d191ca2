"""`tripletune doctor`: what is installed, what is complete, what will not work and how to mend it.

Every examination returns findings; nothing is installed, downloaded or changed.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Finding",
    "Level",
    "doctor",
    "examine_disk",
    "examine_gpu",
    "examine_imports",
    "examine_model_folder",
    "examine_packages",
    "examine_quantisation",
    "examine_settings",
    "find_cached_models",
]

EXIT_FOUND = 1
_MIN_FREE_GIB = 20.0
_MIN_GPU_GIB = 8.0
# NF4 with double quantisation takes 4.127 bits a weight; what is not quantised (embeddings, head)
# and the activations of a batch come on top.
_NF4_BYTES = 4.127 / 8
_WORKSPACE_GIB = 2.5
_NOT_FOR_USERS = ("dev",)
_COMPILED = ("torch", "transformers", "peft", "bitsandbytes", "sentencepiece")


class Level(Enum):
    """How a finding matters: nothing to do, worth knowing, or must be mended."""

    OK = "正常"
    NOTE = "注意"
    WRONG = "错误"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: What was examined.
        level: How it matters.
        state: What was found.
        remedy: What to do, or nothing.
    """

    subject: str
    level: Level
    state: str
    remedy: str = ""


def doctor(
    folders: Annotated[
        list[str] | None, typer.Argument(help="要检查的本地模型文件夹 (默认: 已下载的 ChatGLM)")
    ] = None,
) -> None:
    """Prints what it found; exits with 1 when something must be mended."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)  # not folded at 80 columns in a file
    # Said by bitsandbytes on every CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    findings = [
        *examine_packages(),
        *examine_imports(),
        *examine_gpu(),
        *examine_quantisation(),
        *examine_settings(),
        *examine_disk(Path.cwd()),
    ]
    gpu_gib = _gpu_memory_gib()
    if folders:
        for folder in folders:
            findings += examine_model_folder(Path(folder), gpu_gib=gpu_gib)
    else:
        for folder_path in find_cached_models():
            findings += examine_model_folder(folder_path, gpu_gib=gpu_gib, is_given=False)
    _print_table(console, findings)
    wrong = [finding for finding in findings if finding.level is Level.WRONG]
    if not wrong:
        console.print("没有发现必须处理的问题。")
        return
    console.print(f"发现 {len(wrong)} 个必须处理的问题:")
    for number, finding in enumerate(wrong, start=1):
        text = f"{number}. {finding.subject}: {finding.state}"
        console.print(f"{text}\n   {finding.remedy}" if finding.remedy else text, markup=False)
    raise typer.Exit(EXIT_FOUND)


def examine_packages() -> list[Finding]:
    """Python and every package that this one requires, against the ranges it asks for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        wanted = str(metadata.metadata("tripletune")["Requires-Python"])
    except metadata.PackageNotFoundError:
        return [
            Finding("tripletune", Level.WRONG, "未安装", "pip install -r requirements.txt"),
        ]
    version = platform.python_version()
    fits = SpecifierSet(wanted).contains(version)
    findings = [
        Finding("tripletune", Level.OK, metadata.version("tripletune")),
        Finding(
            "Python",
            Level.OK if fits else Level.WRONG,
            f"{version} (需要 {wanted})",
            "" if fits else "请安装受支持的 Python 版本并重新创建虚拟环境",
        ),
    ]
    for line in metadata.requires("tripletune") or ():
        requirement = Requirement(line)
        extra = _extra_of(requirement)
        marker = requirement.marker
        is_wanted = marker is None or marker.evaluate({"extra": extra or ""})
        if extra not in _NOT_FOR_USERS and is_wanted:
            findings.append(_examine_package(requirement, extra))
    return findings


def examine_imports() -> list[Finding]:
    """Installed packages that cannot be imported, as when a library they link to is missing."""
    findings = []
    for name in _COMPILED:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:  # not installed, which is told elsewhere
                continue
            findings.append(_import_finding(name, error))
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            findings.append(_import_finding(name, error))
    return findings


def examine_gpu() -> list[Finding]:
    """The GPUs that torch sees; or why it sees none."""
    torch = _import("torch")
    if torch is None:
        return []
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            state = "没有 NVIDIA GPU: 训练将使用内置的小模型"
            return [Finding("GPU", Level.NOTE, state, "可用 --model_name embedded 明确选择")]
        build = "不含 CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
        return [
            Finding(
                "GPU",
                Level.WRONG,
                f"有 NVIDIA GPU，但 torch {torch.__version__} ({build}) 不能使用它",
                "安装与驱动匹配的 CUDA 版 torch (https://pytorch.org/get-started/locally/)，"
                "或升级显卡驱动",
            )
        ]
    findings = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gib = properties.total_memory / 2**30
        precision = "bf16" if properties.major >= 8 else "fp16"
        small = gib < _MIN_GPU_GIB
        findings.append(
            Finding(
                f"GPU {index}",
                Level.NOTE if small else Level.OK,
                f"{properties.name}, {gib:.1f} GiB, {precision}",
                "显存不足 8 GiB: 请用 --model_name embedded 或更小的模型" if small else "",
            )
        )
    return findings


def examine_quantisation() -> list[Finding]:
    """Whether 4-bit weights work here, by quantising a small matrix and back."""
    torch, functional = _import("torch"), _import("bitsandbytes.functional")
    if torch is None or functional is None:
        return []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight = torch.linspace(-1, 1, 64 * 64, device=device).view(64, 64)
    try:
        packed, state = functional.quantize_4bit(weight, quant_type="nf4")
        error = float((functional.dequantize_4bit(packed, state) - weight).abs().max())
    except (RuntimeError, ImportError, OSError, AttributeError, NotImplementedError) as problem:
        first = str(problem).strip().split("\n")[0]
        return [
            Finding("4-bit NF4", Level.WRONG, f"{device}: {first}", "pip install -U bitsandbytes")
        ]
    # Neighbouring NF4 values are at most 0.304 apart (arXiv 2305.14314, appendix E).
    if error > 0.16:
        return [
            Finding(
                "4-bit NF4",
                Level.WRONG,
                f"{device}: 量化误差 {error:.2f} 过大",
                "pip install -U bitsandbytes",
            )
        ]
    return [Finding("4-bit NF4", Level.OK, f"{device}: 可用")]


def examine_settings() -> list[Finding]:
    """The environment variables that decide where models come from."""
    findings = []
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None:
        state = "未设置: 从 huggingface.co 下载"
        remedy = "下载失败时: export HF_ENDPOINT=https://hf-mirror.com"
        findings.append(Finding("HF_ENDPOINT", Level.OK, state, remedy))
    elif endpoint.startswith(("http://", "https://")):
        findings.append(Finding("HF_ENDPOINT", Level.OK, endpoint))
    else:
        remedy = "应为完整地址，如 https://hf-mirror.com"
        findings.append(Finding("HF_ENDPOINT", Level.WRONG, repr(endpoint), remedy))
    hub = os.environ.get("TRIPLETUNE_HUB")
    if hub == "modelscope" and _import("modelscope") is None:
        findings.append(
            Finding("TRIPLETUNE_HUB", Level.WRONG, "modelscope 未安装", "pip install modelscope")
        )
    elif hub is not None and hub not in ("modelscope", "huggingface"):
        remedy = "可用的值: modelscope, huggingface"
        findings.append(Finding("TRIPLETUNE_HUB", Level.WRONG, repr(hub), remedy))
    return findings


def examine_disk(folder: Path) -> list[Finding]:
    """Free space where checkpoints will be written."""
    free = shutil.disk_usage(folder).free / 2**30
    low = free < _MIN_FREE_GIB
    return [
        Finding(
            "磁盘",
            Level.NOTE if low else Level.OK,
            f"{folder}: 可用 {free:.1f} GiB",
            "6B 模型的文件约需 13 GiB: 请清理，或用 HF_HOME 指定其他位置" if low else "",
        )
    ]


def examine_model_folder(
    path: Path, *, gpu_gib: float | None, is_given: bool = True
) -> list[Finding]:
    """Whether a model folder is complete, and fits the GPU when quantised.

    Args:
        path: The folder.
        gpu_gib: Memory of the GPU, or None when there is none.
        is_given: Whether the user named it; otherwise (a download found in the cache) what is
            missing is only noted, since it may never have been asked for.
    """
    from tripletune.models.checkpoint_files import describe_model_folder

    folder = describe_model_folder(path)
    gib = folder.num_bytes / 2**30
    size = f", {len(folder.weight_files)} 个权重文件, {gib:.2f} GiB" if folder.weight_files else ""
    subject = f"模型 {path}"
    level = Level.WRONG if is_given else Level.NOTE
    if not folder.is_complete:
        kind = f"{folder.family or '未知类型'}{size}: "
        return [
            Finding(subject, level, kind + text if number == 0 else text)
            for number, text in enumerate(folder.problems)
        ]
    problem = _find_weight_problem(path)
    if problem is not None:
        return [Finding(subject, level, f"{folder.family}{size}: {problem}")]
    findings = [Finding(subject, Level.OK, f"{folder.family}{size}, 完整")]
    bytes_each = 4 if folder.dtype == "float32" else 2
    needed = gib / bytes_each * _NF4_BYTES + _WORKSPACE_GIB
    if gpu_gib is not None and needed > gpu_gib:
        findings.append(
            Finding(
                subject,
                Level.NOTE,
                f"4-bit 训练约需 {needed:.1f} GiB 显存，GPU 只有 {gpu_gib:.1f} GiB",
                "请用 --config small，或更小的模型",
            )
        )
    return findings


def _find_weight_problem(path: Path) -> str | None:
    """What is wrong with the tensors of a ChatGLM folder, if anything."""
    from tripletune.errors import ModelError

    try:
        from tripletune.models.weight_shapes import check_weight_shapes

        check_weight_shapes(path)
    except ModelError as error:
        return str(error)
    except (ImportError, OSError, RuntimeError):
        return None  # torch or transformers cannot be used, which is a finding of its own
    return None


def find_cached_models() -> list[Path]:
    """Folders of the ChatGLM models in the download cache of Hugging Face."""
    hub = _import("huggingface_hub")
    if hub is None:
        return []
    try:
        cache = hub.scan_cache_dir()
    except hub.errors.CacheNotFound:
        return []
    return sorted(
        Path(revision.snapshot_path)
        for repository in cache.repos
        if repository.repo_type == "model" and "chatglm" in repository.repo_id.lower()
        for revision in repository.revisions
    )


def _extra_of(requirement: Any) -> str | None:
    """The extra that a requirement belongs to, from its marker `extra == "name"`."""
    if requirement.marker is None or "extra" not in str(requirement.marker):
        return None
    return str(requirement.marker).split("extra ==")[1].strip(" \"'")


def _examine_package(requirement: Any, extra: str | None) -> Finding:
    wanted = str(requirement.specifier)
    install = f"pip install '{requirement.name}{wanted}'"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        if extra is not None:
            state = f"未安装 (可选: {extra})"
            return Finding(requirement.name, Level.NOTE, state, install)
        return Finding(requirement.name, Level.WRONG, f"未安装 (需要 {wanted})", install)
    if requirement.specifier.contains(version, prereleases=True):
        return Finding(requirement.name, Level.OK, f"{version} (需要 {wanted})")
    return Finding(requirement.name, Level.WRONG, f"{version}，需要 {wanted}", install)


def _import(name: str) -> Any:
    """A module, or None when it cannot be imported, which is a finding of its own."""
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None


def _import_finding(name: str, error: Exception) -> Finding:
    first = str(error).strip().split("\n")[0]
    return Finding(name, Level.WRONG, f"无法导入: {first}", f"pip install --force-reinstall {name}")


def _gpu_memory_gib() -> float | None:
    torch = _import("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory / 2**30)


def _print_table(console: Any, findings: Sequence[Finding] | Iterable[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    colours = {Level.OK: "green", Level.NOTE: "yellow", Level.WRONG: "red"}
    table = Table(title="tripletune doctor")
    for heading in ("项目", "结果", "说明", "处理"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.subject),
            Text(finding.level.value, style=colours[finding.level]),
            Text(finding.state),
            Text(finding.remedy),
        )
    console.print(table)
