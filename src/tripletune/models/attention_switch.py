"""Which networks our attention can stand in for, and networks switched to it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tripletune.models.packed_attention import PACKED_ATTENTION, register_packed_attention

__all__ = [
    "attends_plainly",
    "find_base",
    "packed_attention",
    "switched_attention",
    "takes_runs",
]


def find_base(model: Any) -> Any:
    """A model beneath any adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def takes_runs(model: Any) -> bool:
    """Whether a model that attends by PyTorch's own attention can attend by ours instead."""
    base = find_base(model)
    return bool(
        base.config._attn_implementation == "sdpa"
        and base._supports_attention_backend
        and attends_plainly(base)
    )


def attends_plainly(base: Any) -> bool:
    """Whether attention is the softmax of scores alone, with values as wide as keys.

    Not capped, without sinks or dropout; neither latent attention nor differential, whose keys and
    values differ in width.
    """
    config = base.config
    names = ("kv_lora_rank", "lambda_std_dev")  # DeepSeek's, and DiffLlama's
    widths_differ = any(getattr(config, name, None) is not None for name in names)
    is_capped = getattr(config, "attn_logit_softcapping", None) is not None
    drops = bool(getattr(config, "attention_dropout", 0.0))
    has_sinks = any(name.endswith(".sinks") for name, _ in base.named_parameters())
    return not (widths_differ or is_capped or drops or has_sinks)


@contextmanager
def packed_attention(base: Any) -> Iterator[None]:
    """Inside, a network takes masks that are runs; then its attention is as before."""
    register_packed_attention()
    with switched_attention(base, PACKED_ATTENTION):
        yield


@contextmanager
def switched_attention(base: Any, implementation: str) -> Iterator[None]:
    """Inside, a network attends by an implementation of this name; then as before."""
    before = base.config._attn_implementation
    base.set_attn_implementation(implementation)
    try:
        yield
    finally:
        base.set_attn_implementation(before)
