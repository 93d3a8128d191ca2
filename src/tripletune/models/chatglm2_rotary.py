"""Rotary positions of ChatGLM2-6B and ChatGLM3-6B: half of every head, in neighbouring pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripletune.models.configuration_chatglm2 import ChatGLM2Config

__all__ = ["RotaryEmbedding", "rotate_interleaved", "spread_rotary"]

ROTARY_BASE = 10000.0


class RotaryEmbedding(nn.Module):
    """Cosine and sine of the rotary angles; `inv_freq` is there for the official state dict."""

    inv_freq: Tensor

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__()
        self.width = config.kv_channels // 2
        self.angles_in_fp32 = config.rotary_in_fp32
        self.register_buffer("inv_freq", self.compute_frequencies(torch.float32, None))

    def compute_frequencies(self, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        """(D/4,) frequencies, every step of their computation in `dtype`."""
        exponent = torch.arange(0, self.width, 2, dtype=dtype, device=device) / self.width
        return 1.0 / (ROTARY_BASE**exponent)

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(B, S) positions to cosine and sine, (B, 1, S, D/4) each, in `dtype`."""
        exact = self.angles_in_fp32 or dtype != torch.float16
        angle_dtype = torch.float32 if exact else torch.float16
        frequencies = self.compute_frequencies(angle_dtype, position_ids.device)
        angles = position_ids[:, None, :, None].to(angle_dtype) * frequencies
        angles = angles.float()
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate_interleaved(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The first half of every head rotated in pairs (2i, 2i + 1), the second half as it was.

    Args:
        states: (B, H or G, S, D) queries or keys.
        cosine: (B, 1, S, D/4) from `RotaryEmbedding`.
        sine: Likewise.
    """
    turned, kept = states.chunk(2, dim=-1)  # (B, H, S, D/2) each
    pairs = turned.reshape(*turned.shape[:-1], -1, 2)  # (B, H, S, D/4, 2)
    signed = torch.stack([-sine, sine], dim=-1)
    pairs = pairs * cosine.unsqueeze(-1) + pairs.flip(-1) * signed
    return torch.cat([pairs.flatten(-2), kept], dim=-1)


def spread_rotary(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """The tables for every pair of a head, (B, S, D/2) fp32, as `split_heads` takes them."""
    cosine, sine = cosine.squeeze(1).float(), sine.squeeze(1).float()  # (B, S, D/4)
    return F.pad(cosine, (0, cosine.shape[-1]), value=1.0), F.pad(sine, (0, sine.shape[-1]))
