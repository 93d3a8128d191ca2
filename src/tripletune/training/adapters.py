"""LoRA on a loaded model: which modules, and how many parameters that is."""

from __future__ import annotations

import functools
from typing import Any, Literal

from torch import nn

from tripletune.errors import ConfigError

__all__ = ["add_lora", "count_parameters", "find_linear_names", "render_parameter_line"]


def find_linear_names(model: Any) -> list[str]:
    """Last name components of the model's linear layers, its head excluded, in model order.

    Quantised linear layers count; for a ChatGLM this is query_key_value, dense, dense_h_to_4h,
    dense_4h_to_h.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    names = {
        name.rsplit(".", 1)[-1]: None
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return list(names)


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: tuple[str, ...] | Literal["all-linear"],
    model_name: str,
    revision: str | None = None,
) -> Any:
    """The model wrapped by PEFT with fresh LoRA matrices (arXiv 2106.09685) on the named layers.

    Args:
        model: A causal model, quantised or not.
        rank: R.
        alpha: The update is scaled by alpha / rank.
        dropout: On the adapter's input, while training.
        target_modules: Last name components of linear layers, or `all-linear`.
        model_name: Recorded in the adapter as the base model.
        revision: Of a hub id, recorded likewise.

    Raises:
        ConfigError: a name matches no linear layer; the message lists those there are.
    """
    from peft import LoraConfig, get_peft_model

    available = find_linear_names(model)
    names = available if target_modules == "all-linear" else list(target_modules)
    for name in names:
        if name not in available:
            raise ConfigError(
                f"lora_target_modules: {name!r} matches no linear layer in "
                f"{type(model).__name__}; available: {', '.join(available)}"
            )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        revision=revision,
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = model_name
    # Otherwise every save asks the hub whether the vocabulary was resized; it never is.
    adapted.save_pretrained = functools.partial(
        adapted.save_pretrained, save_embedding_layers=False
    )
    return adapted


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters; a packed 4-bit parameter counts as the two it holds a byte."""
    layers: list[Any] = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    packed = {layer.weight: 2 * layer.weight.nbytes for layer in layers}
    trainable, total = 0, 0
    for parameter in model.parameters():
        count = packed.get(parameter, parameter.numel())
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def render_parameter_line(trainable: int, total: int) -> str:
    """The guide's `trainable params: … || all params: … || trainable%: …` line.

    Example:
        >>> render_parameter_line(1_949_696, 6_245_533_696)
        'trainable params: 1,949,696 || all params: 6,245,533,696 || trainable%: 0.0312'
    """
    return (
        f"trainable params: {trainable:,} || all params: {total:,} || "
        f"trainable%: {100 * trainable / total:.4f}"
    )
