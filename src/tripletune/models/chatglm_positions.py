"""Positions, rotary angles and document numbers of ChatGLM-6B.

A token has two positions: its place in the context and its place in the answer; `chatglm` says how
the network uses them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tripletune.errors import DataError
from tripletune.models.configuration_chatglm import ChatGLMConfig

__all__ = [
    "build_position_ids",
    "build_rotary",
    "find_documents",
    "read_real_tokens",
    "rotate_two_rows",
]


def build_position_ids(
    input_ids: Tensor, config: ChatGLMConfig, *, attention_mask: Tensor | None = None
) -> Tensor:
    """The two position rows of each token, (B, 2, S), as the official model builds them.

    For `context [gMASK] <sop> answer`, with the mask token at place 3:

    ```
    token     c c c [gMASK] <sop> a a
    row 0     0 1 2    3      3   3 3
    row 1     0 0 0    0      1   2 3
    ```

    Args:
        input_ids: (B, S).
        config: For the ids of `<sop>`, `[gMASK]` and `[MASK]`; the first `[gMASK]` counts, else the
            first `[MASK]`.
        attention_mask: As `ChatGLMModel.forward`; padding on the left is not counted and has
            position 0.

    Raises:
        DataError: a row has no `<sop>`, or neither mask token.
    """
    batch_size, length = input_ids.shape
    is_start = input_ids == config.bos_token_id
    is_gmask = input_ids == config.gmask_token_id
    is_mask = torch.where(
        is_gmask.any(dim=1, keepdim=True), is_gmask, input_ids == config.mask_token_id
    )
    for found, name in ((is_start, "<sop>"), (is_mask, "[gMASK] or [MASK]")):
        if not bool(found.any(dim=1).all()):
            row = int((~found.any(dim=1)).nonzero()[0])
            raise DataError(
                f"input_ids: row {row} holds no {name} token; end each prompt with [gMASK] <sop>, "
                "as the tokenizer does"
            )
    context_length = is_start.int().argmax(dim=1, keepdim=True)  # (B, 1)
    mask_index = is_mask.int().argmax(dim=1, keepdim=True)
    index = torch.arange(length, device=input_ids.device).expand(batch_size, -1)  # (B, S)
    is_real = read_real_tokens(attention_mask)
    num_left = torch.zeros_like(context_length)
    if is_real is not None:
        num_left = is_real[:, :length].int().argmax(dim=1, keepdim=True)
    in_answer = index >= context_length
    position = torch.where(in_answer, mask_index, index) - num_left
    block_position = torch.where(in_answer, index - context_length + 1, 0)
    return torch.stack([position.clamp(min=0), block_position], dim=1)


def build_rotary(position_ids: Tensor, config: ChatGLMConfig) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of the rotary angles, (B, S, 1, 2 rows, 2 partners, D/4) each, fp32.

    Args:
        position_ids: (B, 2, S).
        config: For the head width D.
    """
    half = config.hidden_size // config.num_attention_heads // 2
    exponent = torch.arange(0, half, 2, device=position_ids.device, dtype=torch.float32) / half
    frequency = (1.0 / 10000.0**exponent).half().float()  # (D/4,), rounded as in the checkpoint
    angle = position_ids.transpose(1, 2).unsqueeze(-1) * frequency  # (B, S, 2, D/4)
    angle = angle.unsqueeze(2).unsqueeze(-2)  # (B, S, 1, 2, 1, D/4)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([cosine, cosine], dim=-2), torch.cat([-sine, sine], dim=-2)


def rotate_two_rows(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each half of every head rotated by its own position row; element i pairs with i + D/4.

    Args:
        states: (B, S, H, D) queries or keys.
        cosine: From `build_rotary`.
        sine: Likewise.
    """
    # (B, S, H, 2 rows, 2 partners, D/4)
    parts = states.reshape(*states.shape[:-1], 2, 2, -1).float()
    rotated = parts * cosine + parts.flip(-2) * sine
    return rotated.flatten(-3).to(states.dtype)


def read_real_tokens(attention_mask: Tensor | None) -> Tensor | None:
    """(B, K) bool, True at real tokens, from either form of mask; None stays None."""
    if attention_mask is None:
        return None
    if attention_mask.dim() == 4:
        return ~attention_mask[:, 0, -1].bool()
    return attention_mask.bool()


def find_documents(block_position: Tensor, num_keys: int, *, always: bool = False) -> Tensor | None:
    """(B, K) document numbers of packed rows, or None when no row holds more than one.

    With `always` never None, for which the device need not be waited for.
    """
    restarts = (block_position[:, 1:] == 0) & (block_position[:, :-1] > 0)
    if not always and not bool(restarts.any()):
        return None
    numbers = F.pad(restarts.long().cumsum(dim=1), (1, 0))
    return F.pad(numbers, (0, num_keys - numbers.shape[1]), value=-1)
