"""Prompts read in both directions by networks that were made to read in one.

A prompt is known as a whole before the answer begins, yet in a causal network its first words are
read without the last. Here the tokens of a prompt see each other, as in ChatGLM-6B (the picture is
in `attention_mask`); the answer is written as before. Nothing is added to the network: fine-tuning
teaches it to read so, and whoever uses it afterwards has to let it read so.

Source: the prefix language model of arXiv 1910.10683, section 3.2.1; fine-tuning causal models with
it, arXiv 2404.05961.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from tripletune.errors import ConfigError
from tripletune.models.attention_mask import build_prefix_mask
from tripletune.models.causal_mask import (
    TAKE_READY_MASKS,
    give_runs_to_layers,
    number_documents,
)
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.packed_attention import is_packed

__all__ = [
    "build_prompt_mask",
    "read_prompts_both_ways",
    "reads_one_way",
]


def reads_one_way(config: Any, num_tokens: int) -> bool:
    """Whether a network reads prompts in one direction, and can be made to read them in both.

    Args:
        config: Of the network.
        num_tokens: The longest prompt and answer together.

    Returns:
        False for ChatGLM-6B, which reads them in both as it is.

    Raises:
        ConfigError: it has layers without a mask, or a window of its own that is shorter.
    """
    if isinstance(config, ChatGLMConfig):
        return False
    kinds = set(getattr(config, "layer_types", None) or ())
    window = _find_window(config)
    if kinds - {"full_attention", "sliding_attention"}:
        raise ConfigError(
            f"bidirectional_prompt: True, but {config.model_type} has layers that read in one "
            f"direction only ({', '.join(sorted(kinds))}); leave it out"
        )
    takes_masks = "sliding_attention" in kinds and config.model_type in TAKE_READY_MASKS
    if window is not None and window < num_tokens and not takes_masks:
        raise ConfigError(
            f"bidirectional_prompt: True, but {config.model_type} sees {window} tokens at a time, "
            f"and max_source_length and max_target_length come to {num_tokens}; lower them, or "
            "leave it out"
        )
    return True


def read_prompts_both_ways(base: Any) -> None:
    """Has a causal model, in place, see all of a prompt wherever it is given labels.

    The tokens without a label (-100) at the start of a document are its prompt. Without labels,
    when it generates, nothing changes: the reader of prompts gives the mask then.

    Args:
        base: The model, beneath any adapter; whatever else replaces its forward pass came before.
    """
    plain = base.forward

    @functools.wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        labels = kwargs.get("labels")
        if labels is not None:
            mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
            kwargs["attention_mask"] = build_prompt_mask(
                base.config,
                is_context=labels == -100,
                is_real=None if mask is None else mask.bool(),
                document_ids=(
                    number_documents(positions) if mask is None and positions is not None else None
                ),
                dtype=base.dtype,
            )
        return plain(*args, **kwargs)

    base.forward = forward


def build_prompt_mask(
    config: Any,
    *,
    is_context: Tensor,
    is_real: Tensor | None,
    document_ids: Tensor | None,
    dtype: torch.dtype,
) -> Any:
    """The mask of rows without a cache, in the form that the network's attention takes.

    Args:
        config: Of the network; names the attention implementation.
        is_context: (B, S) bool, True at tokens of a prompt; padding does not matter.
        is_real: (B, S) bool, False at padding. None: everything is real.
        document_ids: (B, S) integers, of packed rows. None: one document a row.
        dtype: Of an additive mask.

    Returns:
        As `build_prefix_mask`; for a network with layers of a window shorter than the rows, a
        dictionary with the mask of each kind of layer.
    """
    length = is_context.shape[1]
    build = functools.partial(
        build_prefix_mask,
        str(config._attn_implementation),
        num_queries=length,
        num_keys=length,
        first_query=0,
        is_context=is_context,
        is_real=is_real,
        document_ids=document_ids,
        dtype=dtype,
        device=is_context.device,
    )
    mask = build()
    window = _find_window(config)
    if is_packed(mask):
        return give_runs_to_layers(config, mask)
    if window is None or window >= length:
        return mask
    return {"full_attention": mask, "sliding_attention": build(window=window)}


def _find_window(config: Any) -> int | None:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)
