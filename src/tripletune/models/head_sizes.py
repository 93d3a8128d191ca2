"""How many heads of keys a network has, and how wide a head is, by its configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["find_head_width", "find_key_heads"]


def find_head_width(config: Any) -> int:
    """Elements of a head of queries and keys, by the configuration of a network's text part."""
    return int(
        getattr(config, "head_dim", None)
        or getattr(config, "kv_channels", None)
        or config.hidden_size // config.num_attention_heads
    )


def find_key_heads(config: Any) -> int:
    """Heads of keys and of values, likewise; each is shared by as many heads of queries."""
    if getattr(config, "multi_query_attention", False):
        return int(config.multi_query_group_num)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
