from __future__ import annotations

import pytest
import torch

from tripletune.models.chatglm2_rotary import RotaryEmbedding, rotate_interleaved, spread_rotary
from tripletune.models.configuration_chatglm2 import ChatGLM2Config


def build_config(**changes) -> ChatGLM2Config:
    return ChatGLM2Config(num_layers=1, hidden_size=64, num_attention_heads=2, **changes)


def test_rotation_turns_pairs_of_the_first_half():
    states = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).view(1, 1, 1, 8)
    quarter_turn = (torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    expected = [-2.0, 1.0, -4.0, 3.0, 5.0, 6.0, 7.0, 8.0]
    assert rotate_interleaved(states, *quarter_turn).flatten().tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_chatglm3_angles_are_fp32_in_every_dtype(dtype):
    rotary = RotaryEmbedding(
        ChatGLM2Config(
            num_layers=1,
            hidden_size=64,
            num_attention_heads=2,
            kv_channels=128,
            rotary_in_fp32=True,
        )
    )
    cosine, sine = rotary(torch.tensor([[1501]]), dtype)
    exponents = torch.arange(0, 64, 2, dtype=torch.float64) / 64
    angles = 1501 / 10000**exponents
    # An angle of 1501 in fp32 is exact to 1e-4; the rest is rounding of the result.
    bound = 2e-4 + torch.finfo(dtype).eps
    assert float((cosine.flatten().double() - angles.cos()).abs().max()) < bound
    assert float((sine.flatten().double() - angles.sin()).abs().max()) < bound


def test_chatglm2_angles_in_fp16_are_rounded_at_every_step():
    rotary = RotaryEmbedding(
        ChatGLM2Config(
            num_layers=1,
            hidden_size=64,
            num_attention_heads=2,
            kv_channels=128,
            rotary_in_fp32=False,
        )
    )
    cosine, _ = rotary(torch.tensor([[1501]]), torch.float16)
    # By hand, third frequency: 10000 ** (4 / 64) = 1.7783 -> half 1.7783203, its inverse ->
    # half 0.5625; 1501 * 0.5625 = 844.3125 -> half 844.5.
    assert float(cosine[0, 0, 0, 2]) == float(torch.tensor(844.5).cos().half())


def test_chatglm2_angles_in_bf16_are_fp32():
    both = [
        RotaryEmbedding(
            ChatGLM2Config(
                num_layers=1, hidden_size=64, num_attention_heads=2, rotary_in_fp32=choice
            )
        )(torch.tensor([[301]]), torch.bfloat16)
        for choice in (True, False)
    ]
    assert torch.equal(both[0][0], both[1][0])


def test_spread_tables_rotate_like_the_short_ones():
    torch.manual_seed(0)
    states = torch.randn(1, 3, 7, 32)
    cosine, sine = torch.randn(2, 1, 1, 7, 8).unbind(0)
    wide_cosine, wide_sine = spread_rotary(cosine, sine)  # (1, 7, 16) each
    even, odd = states[..., 0::2], states[..., 1::2]
    pairs = [even * wide_cosine - odd * wide_sine, odd * wide_cosine + even * wide_sine]
    rotated = torch.stack(pairs, dim=-1).flatten(-2)
    torch.testing.assert_close(rotated, rotate_interleaved(states, cosine, sine))
