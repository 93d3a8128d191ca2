"""How many slots, and how many tokens of prompts at a time, memory has room for."""

from __future__ import annotations

from typing import Any

from tripletune.models.gpu_memory import find_free_bytes
from tripletune.models.head_sizes import find_head_width, find_key_heads

__all__ = [
    "MOST_PROMPT_TOKENS",
    "count_prompt_tokens",
    "count_slots",
    "find_room",
    "round_places",
]

_ROUNDING = 64
_SHARE_FOR_SLOTS = 0.7
_SHARE_FOR_READING = 0.6
"""Of what the slots leave; the rest is for logits, a dequantised weight and fragments."""
MOST_PROMPT_TOKENS = 16384
"""More at a time is no faster."""
_NO_LIMIT = 2**31


def round_places(num_places: int) -> int:
    """The places that a slot is given for so many: a multiple of 64."""
    return -(-num_places // _ROUNDING) * _ROUNDING


def find_room(model: Any) -> int | None:
    """Bytes that are free on a model's GPU.

    None on a CPU, whose memory is not looked at, and for models without attention, whose state does
    not grow.
    """
    has_attention = hasattr(model.config.get_text_config(), "num_attention_heads")
    on_gpu = model.device.type == "cuda"
    return find_free_bytes(model.device) if on_gpu and has_attention else None


def count_slots(model: Any, num_places: int, room: int | None) -> int:
    """How many slots of so many places there is room for; at least 1.

    Args:
        model: A causal language model.
        num_places: Longest prompt and answer together, in tokens.
        room: Bytes that slots and all that is computed may take; None: as many as anyone may want.
    """
    if room is None:
        return _NO_LIMIT
    room -= _find_record_bytes(model)
    return max(1, int(_SHARE_FOR_SLOTS * room / (_find_cache_bytes(model) * num_places)))


def count_prompt_tokens(model: Any, num_slots: int, num_places: int, room: int | None) -> int:
    """How many tokens of prompts can be read at a time beside so many slots; at least 1."""
    if room is None:
        return MOST_PROMPT_TOKENS
    left = room - _find_record_bytes(model) - num_slots * num_places * _find_cache_bytes(model)
    each = _find_reading_bytes(model, num_places)
    return min(MOST_PROMPT_TOKENS, max(1, int(_SHARE_FOR_READING * left / each)))


def _find_record_bytes(model: Any) -> int:
    """What a recorded step keeps to itself for good: the largest weight that it dequantises."""
    quantised = (module for module in model.modules() if type(module).__name__ == "Linear4bit")
    sizes = (module.in_features * module.out_features for module in quantised)
    return int(model.dtype.itemsize * max(sizes, default=0))


def _find_cache_bytes(model: Any) -> int:
    """Keys and values of a token in all layers."""
    config = model.config.get_text_config()
    width = find_key_heads(config) * find_head_width(config)
    return int(2 * config.num_hidden_layers * width * model.dtype.itemsize)


def _find_reading_bytes(model: Any, num_places: int) -> int:
    """What a token of a prompt takes while a block reads it, rather more than less.

    The residual stream, the widest products before and after what lies between them, queries and
    keys rotated in fp32; and the scores of attention where they are written out.
    """
    config = model.config.get_text_config()
    num_heads = config.num_attention_heads
    head_width = find_head_width(config)
    vocabulary = getattr(config, "padded_vocab_size", config.vocab_size)
    widths = (getattr(module, "out_features", 0) for module in model.modules())
    widest = max((width for width in widths if width != vocabulary), default=config.hidden_size)
    num_bytes = model.dtype.itemsize * (2 * config.hidden_size + 4 * widest)
    num_bytes += 20 * num_heads * head_width
    if str(getattr(config, "_attn_implementation", "eager")) == "eager":
        num_bytes += (4 + 2 * model.dtype.itemsize) * num_heads * num_places
    return int(num_bytes)
