"""Memory of a training run before it starts: what it will need, and what to do about it.

The estimate is for the largest micro-batch of the real data. What is loaded is counted, what is to
come is computed:

- adapter: gradients and two Adam moments beside the fp32 weights;
- activations without checkpointing: what the compiled blocks keep for the backward pass, about
  `2 * (9 E + 2.75 F)` bytes a token and layer (measured, bf16);
- activations with full checkpointing: a block's input a token and layer, and one block at a time
  as above, twice (values and gradients);
- head: a chunk of logits and their gradient; one dequantised weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tripletune.config import TrainingSettings
from tripletune.errors import ResourceError
from tripletune.training.sharding import count_bytes

__all__ = ["MemoryPlan", "measure_network", "plan_memory"]

GIB = 2**30
_USABLE = 0.92
_HEAD_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """The sizes that memory depends on, in bytes and elements.

    Attributes:
        loaded_bytes: Everything that is in memory once the model is loaded.
        trainable: Adapter parameters (fp32).
        layers: Number of blocks.
        width: E.
        mlp_width: F (twice the inner width for a gated MLP).
        vocabulary: V.
        largest_weight: Elements of the largest linear layer.
    """

    loaded_bytes: int
    trainable: int
    layers: int
    width: int
    mlp_width: int
    vocabulary: int
    largest_weight: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run will need, part by part, in bytes, and the policy that was chosen.

    Attributes:
        parts: Bytes by name, in the order of the table.
        total: Their sum: the predicted peak.
        available: What the GPU has for this process.
        checkpointing: Whether activations are recomputed in the backward pass.
        tokens: Of the largest micro-batch.
        reason: Why this policy, in one Chinese sentence.
    """

    parts: dict[str, int]
    total: int
    available: int
    checkpointing: bool
    tokens: int
    reason: str

    def render(self) -> str:
        """The plan as a small table."""
        lines = [f"  {name:<24}{size / GIB:8.2f} GiB" for name, size in self.parts.items()]
        lines.append(f"  {'合计 (预计峰值)':<20}{self.total / GIB:8.2f} GiB")
        lines.append(f"  {'可用显存':<22}{self.available / GIB:8.2f} GiB")
        return "\n".join(["显存计划:", *lines, f"  {self.reason}"])


def measure_network(model: Any) -> NetworkSize:
    """The sizes of a loaded PEFT model."""
    from torch import nn

    config = model.get_base_model().config
    inner = int(getattr(config, "intermediate_size", 4 * config.hidden_size))
    gated = any(name.endswith(("gate_proj", "gate_up_proj")) for name, _ in model.named_modules())
    is_swiglu = gated or hasattr(config, "ffn_hidden_size")
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return NetworkSize(
        loaded_bytes=sum(count_bytes(model)),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        mlp_width=2 * inner if is_swiglu else inner,
        vocabulary=int(model.get_output_embeddings().weight.shape[0]),
        largest_weight=max(m.in_features * m.out_features for m in linear),
    )


def plan_memory(
    size: NetworkSize,
    lengths: Sequence[int],
    settings: TrainingSettings,
    *,
    available: int,
) -> MemoryPlan:
    """Chooses whether to checkpoint and predicts the peak.

    Args:
        size: Of the loaded model.
        lengths: Tokens of each training example.
        settings: Batch size and lengths; `gradient_checkpointing` False forbids it.
        available: Bytes the GPU has in all for this process.

    Raises:
        ResourceError: nothing fits; the message says what to lower.
    """
    tokens = sum(sorted(lengths, reverse=True)[: settings.batch_size])
    tokens = -(-tokens // 128) * 128
    per_layer = int(2 * (9 * size.width + 2.75 * size.mlp_width)) * tokens
    fixed = {
        "模型 (NF4 与词向量)": size.loaded_bytes,
        "LoRA 梯度与优化器": 12 * size.trainable,
        "词表输出 (分块)": 4 * min(tokens, _HEAD_CHUNK) * size.vocabulary + 2 * size.largest_weight,
    }
    usable = int(_USABLE * available)
    plain = {**fixed, "激活值": per_layer * size.layers}
    if sum(plain.values()) <= usable:
        return _plan(plain, available, False, tokens, "显存充足，不需要梯度检查点，速度最快")
    full = {**fixed, "激活值 (梯度检查点)": 2 * size.width * tokens * size.layers + 2 * per_layer}
    total = sum(full.values())
    if total <= usable and settings.gradient_checkpointing:
        return _plan(full, available, True, tokens, "使用梯度检查点以放进显存")
    raise ResourceError(
        f"memory: a micro-batch of {tokens} tokens needs about {total / GIB:.1f} GiB of the "
        f"{usable / GIB:.1f} GiB usable on this GPU; lower --batch_size (now "
        f"{settings.batch_size}) or --max_source_length (now {settings.max_source_length}), or "
        "use --config small"
        + ("" if settings.gradient_checkpointing else "; allow gradient checkpointing")
    )


def _plan(
    parts: dict[str, int], available: int, checkpointing: bool, tokens: int, reason: str
) -> MemoryPlan:
    return MemoryPlan(parts, sum(parts.values()), available, checkpointing, tokens, reason)
