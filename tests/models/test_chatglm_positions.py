from __future__ import annotations

import math

import torch

from tripletune.models.chatglm_positions import (
    build_position_ids,
    build_rotary,
    find_documents,
    read_real_tokens,
    rotate_two_rows,
)
from tripletune.models.configuration_chatglm import ChatGLMConfig

CONFIG = ChatGLMConfig(
    vocab_size=40,
    hidden_size=32,
    num_layers=1,
    num_attention_heads=2,
    inner_hidden_size=64,
    mask_token_id=30,
    gmask_token_id=31,
    bos_token_id=34,
    eos_token_id=35,
)


def test_positions_as_drawn_in_the_docstring():
    ids = torch.tensor([[5, 6, 7, 31, 34, 8, 9]])
    assert build_position_ids(ids, CONFIG).tolist() == [
        [[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3]]
    ]


def test_padding_on_the_left_is_not_counted():
    ids = torch.tensor([[3, 3, 5, 31, 34, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    assert build_position_ids(ids, CONFIG, attention_mask=mask).tolist() == [
        [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 2]]
    ]


def test_official_mask_gives_the_real_tokens():
    masked = torch.tensor([[[[True, True], [True, False]]]])
    assert read_real_tokens(masked).tolist() == [[False, True]]
    assert read_real_tokens(None) is None


def test_rotary_turns_each_half_by_its_own_position():
    cosine, sine = build_rotary(torch.tensor([[[2], [1]]]), CONFIG)
    states = torch.zeros(1, 1, 1, 16)
    states[..., 0] = 1.0  # first pair of the first half
    states[..., 8] = 1.0  # first pair of the second half
    rotated = rotate_two_rows(states, cosine, sine)[0, 0, 0]
    expected = torch.zeros(16)
    expected[0], expected[4] = math.cos(2.0), math.sin(2.0)
    expected[8], expected[12] = math.cos(1.0), math.sin(1.0)
    torch.testing.assert_close(rotated, expected)


def test_documents_begin_where_the_answer_position_falls_back():
    block_position = torch.tensor([[0, 0, 1, 2, 0, 1]])
    assert find_documents(block_position, 6).tolist() == [[0, 0, 0, 0, 1, 1]]
    assert find_documents(torch.tensor([[0, 0, 1, 2]]), 4) is None
