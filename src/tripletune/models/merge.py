"""An adapter folded into its base model: one plain folder that loads without `peft`.

The adapter is added to unquantised weights. Added to 4-bit weights it would be rounded away for
the most part, and a model that was trained on a quantised base still gets its own adapter: the
base's rounding is what it loses, not the adapter.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tripletune.errors import AdapterError, ConfigError, ModelError, OutputError, ResourceError
from tripletune.models.adapter_files import attach_adapter, check_adapter_folder
from tripletune.models.checkpoint_files import check_model_folder, is_lfs_pointer

if TYPE_CHECKING:
    import torch

__all__ = [
    "CHECK_SENTENCES",
    "MergeCheck",
    "MergePlan",
    "compute_last_logits",
    "merge_adapter",
    "plan_merge",
    "read_adapter_config",
]

CHECK_SENTENCES = (
    "远望科技有限公司由李思远于2012年在杭州创立。",
    "长篇小说《雾中灯塔》的作者是王若兰，由青禾出版社出版。",
    "陈国栋毕业于江北大学，现任青松制药集团董事长。",
    "电影《归途》由赵一鸣执导，周海燕主演，片长118分钟。",
    "云岭县隶属于南川市，面积1,280平方公里，人口32.6万。",
    "该药品适用于成人高血压，常见不良反应为头晕、乏力。",
    "5号给水泵轴承温度过高，原因是润滑油不足，处理方法为补油。",
    "孙文博的妻子是许静，两人育有一子孙小川。",
    "The Lantern Project was founded by Mary Hill in Boston in 1998.",
    "今天没有什么值得记录的事情。",
)
# How far the logits may be apart, relative to the largest of them: the merged weights are rounded
# once to the dtype, where the adapter was added to the products in fp32.
_BOUNDS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
_NUM_POSITIONS = 8
_DISK_RESERVE = 64 * 2**20
_MERGEABLE = ("ADALORA", "BOFT", "HRA", "IA3", "LOHA", "LOKR", "LORA", "OFT", "RANDLORA", "VERA")


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge will read and write, known before any weight is loaded.

    Attributes:
        base: Name or folder of the base model.
        adapter: The adapter folder.
        output: The folder to write.
        dtype: Name of the dtype of the written weights.
        num_bytes: Disk space that the written weights need.
        num_free_bytes: Disk space free where `output` lies.
        revision: Of the base model, when it is a hub id.
    """

    base: str
    adapter: Path
    output: Path
    dtype: str
    num_bytes: int
    num_free_bytes: int
    revision: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the written model fits on the disk, with a little to spare."""
        return self.num_bytes + _DISK_RESERVE <= self.num_free_bytes


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """How near the merged model is to the base with its adapter.

    Attributes:
        num_sentences: Sentences compared.
        max_difference: Largest difference of a logit, relative to the largest logit.
        bound: What that may be in the dtype of the merged weights.
        num_same_choice: Positions where both prefer the same token.
        num_positions: Positions compared.
    """

    num_sentences: int
    max_difference: float
    bound: float
    num_same_choice: int
    num_positions: int

    @property
    def passed(self) -> bool:
        """Whether the difference is no more than rounding."""
        return self.max_difference <= self.bound


def read_adapter_config(adapter: Path) -> dict[str, Any]:
    """The fields of an adapter's `adapter_config.json`.

    Raises:
        AdapterError: the folder, the file or the weights beside it are missing or damaged, or the
            adapter is of a kind that is no part of the weights.
    """
    path = adapter / "adapter_config.json"
    if not path.is_file():
        raise AdapterError(
            f"adapter: {str(adapter)!r} holds no adapter_config.json; give the output folder of a "
            "training"
        )
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = str(fields["peft_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path}: is no adapter configuration ({error!r})") from error
    if kind not in _MERGEABLE:
        raise AdapterError(
            f"{path}: peft_type {kind!r} cannot be merged into weights; accepted are "
            f"{', '.join(_MERGEABLE)}"
        )
    weights = [adapter / f"adapter_model.{suffix}" for suffix in ("safetensors", "bin")]
    present = [file for file in weights if file.is_file()]
    if not present:
        raise AdapterError(
            f"adapter: {str(adapter)!r} holds neither {' nor '.join(_names(weights))}"
        )
    if is_lfs_pointer(present[0]):
        raise AdapterError(
            f"{present[0]}: is a Git LFS pointer, not the weights; run 'git lfs pull' in {adapter}"
        )
    check_adapter_folder(adapter)
    return fields


def plan_merge(
    adapter: str | Path,
    output: str | Path,
    *,
    base: str | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
) -> MergePlan:
    """What merging will read and write. Reads configurations only.

    Args:
        adapter: The adapter folder.
        output: The folder to write.
        base: Name or folder of the base model. None: the one the adapter was trained on.
        dtype: `float32`, `float16` or `bfloat16`. None: that of the base model's files.
        overwrite: Whether a model folder at `output` may be replaced.

    Raises:
        AdapterError: the adapter folder cannot be used.
        ModelError: the base model cannot be found, or its weights are quantised.
        ConfigError: an unknown dtype, or no base model is named anywhere.
        OutputError: `output` holds files and `overwrite` is not given, or holds no model, or is
            what is merged.
    """
    adapter, output = Path(adapter), Path(output)
    recorded = read_adapter_config(adapter)
    name = base or recorded.get("base_model_name_or_path")
    revision = None if base else recorded.get("revision")
    if not name:
        raise ConfigError(
            f"base: {adapter / 'adapter_config.json'} names no base model; give one (--base)"
        )
    _check_output(output, overwrite, {adapter, Path(str(name)).expanduser()})
    config = _load_config(str(name), revision)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"base: {name!r} holds quantised weights, into which an adapter cannot be merged "
            "without losing it; give the unquantised model (--base)"
        )
    chosen = dtype or str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if chosen not in _BOUNDS:
        raise ConfigError(f"dtype: {chosen!r} is unknown; accepted are {', '.join(_BOUNDS)}")
    existing = next(
        folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists()
    )
    return MergePlan(
        base=str(name),
        revision=revision,
        adapter=adapter,
        output=output,
        dtype=chosen,
        num_bytes=_count_parameters(config) * (4 if chosen == "float32" else 2),
        num_free_bytes=shutil.disk_usage(existing).free,
    )


def merge_adapter(
    plan: MergePlan, *, check: bool = False, device: str = "cpu"
) -> MergeCheck | None:
    """Writes the merged model, and returns how it compares when `check` is set.

    The folder appears under its name only when it is complete: it holds safetensors, the
    tokenizer's files and the configuration, and loads without the adapter.

    Args:
        plan: From `plan_merge`.
        check: Whether to compare the logits of `CHECK_SENTENCES` before and after. Loads the
            written folder.
        device: Where to merge and compare.

    Raises:
        ResourceError: the disk is too full.
        AdapterError: the adapter does not belong to the base model.
        ModelError: the base model cannot be loaded, or was loaded quantised.
        OutputError: the folder cannot be written.
    """
    import torch

    from tripletune.models.loading import load_model, load_tokenizer

    if not plan.fits:
        raise ResourceError(
            f"disk: the merged model needs {plan.num_bytes / 2**30:.1f} GiB, but only "
            f"{plan.num_free_bytes / 2**30:.1f} GiB are free at {plan.output}; free some or choose "
            "another place"
        )
    dtype = getattr(torch, plan.dtype)
    has_tokenizer = (plan.adapter / "tokenizer_config.json").is_file()
    tokenizer = (
        load_tokenizer(str(plan.adapter))
        if has_tokenizer
        else load_tokenizer(plan.base, revision=plan.revision)
    )
    model = load_model(
        plan.base, quantize=False, device=device, dtype=dtype, revision=plan.revision
    )
    if getattr(model, "is_quantized", False):
        raise ModelError(f"base: {plan.base!r} was loaded quantised; give the unquantised model")
    adapted = _add_adapter(model, plan)
    before = compute_last_logits(adapted, tokenizer, CHECK_SENTENCES) if check else None
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise AdapterError(f"adapter: {str(plan.adapter)!r} cannot be merged: {error}") from error
    _write(merged, tokenizer, plan.output)
    if before is None:
        return None
    del model, adapted, merged
    gc.collect()
    again = load_model(str(plan.output), quantize=False, device=device, dtype=dtype)
    return _compare(before, compute_last_logits(again, tokenizer, CHECK_SENTENCES), plan.dtype)


def compute_last_logits(model: Any, tokenizer: Any, sentences: Sequence[str]) -> list[torch.Tensor]:
    """Logits of the last positions of each sentence as a prompt, (P, V) fp32 on the CPU."""
    import torch

    device = next(model.parameters()).device
    logits = []
    for sentence in sentences:
        if hasattr(tokenizer, "build_prompt_ids"):
            ids = tokenizer.build_prompt_ids(sentence)
        else:
            ids = tokenizer(sentence)["input_ids"]
        with torch.inference_mode():
            output = model(torch.tensor([ids], device=device), logits_to_keep=_NUM_POSITIONS)
        logits.append(output.logits[0].float().cpu())
    return logits


def _check_output(output: Path, overwrite: bool, sources: set[Path]) -> None:
    if output.resolve() in {path.resolve() for path in sources}:
        raise OutputError(f"output: {str(output)!r} is read from; choose another folder")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise OutputError(
            f"output: {str(output)!r} is not empty; choose another folder or pass --overwrite"
        )
    if not (output / "config.json").is_file():
        raise OutputError(
            f"output: {str(output)!r} holds something other than a model, which is not replaced; "
            "choose another folder"
        )


def _names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]


def _load_config(name: str, revision: str | None) -> Any:
    from tripletune.models.loading import load_config, resolve_model_path

    if resolve_model_path(name).endswith(".gguf"):
        raise ModelError(f"base: {name!r} holds quantised GGUF weights; give the unquantised model")
    return load_config(name, revision=revision)


def _count_parameters(config: Any) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def _add_adapter(model: Any, plan: MergePlan) -> Any:
    try:
        return attach_adapter(model, plan.adapter).eval()
    except AdapterError as error:
        raise AdapterError(
            f"adapter: {str(plan.adapter)!r} does not fit the base model {plan.base!r}: {error}; "
            "give the model it was trained on (--base)"
        ) from error


def _write(model: Any, tokenizer: Any, output: Path) -> None:
    """Writes beside `output` and renames, so that no half-written folder looks complete."""
    partial = output.with_name(output.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        model.save_pretrained(partial, max_shard_size="2GB")
        tokenizer.save_pretrained(partial)
        check_model_folder(partial)
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(f"output: {str(output)!r} cannot be written: {error}") from error


def _compare(
    before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], dtype: str
) -> MergeCheck:
    differences, same, total = [], 0, 0
    for first, second in zip(before, after, strict=True):
        largest = float(first.abs().max())
        differences.append(float((first - second).abs().max()) / max(largest, 1e-12))
        same += int((first.argmax(dim=-1) == second.argmax(dim=-1)).sum())
        total += first.shape[0]
    return MergeCheck(len(before), max(differences), _BOUNDS[dtype], same, total)
