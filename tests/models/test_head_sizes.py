from typing import Any

import pytest

from tests.extraction.builders import build_chatglm, build_chatglm2, build_llama, build_sliding
from tripletune.models.head_sizes import find_head_width, find_key_heads


@pytest.mark.parametrize(
    ("build", "width", "key_heads"),
    [(build_chatglm, 16, 2), (build_chatglm2, 8, 2), (build_llama, 8, 2), (build_sliding, 8, 2)],
)
def test_sizes_are_found_under_each_name(build: Any, width: int, key_heads: int) -> None:
    config = build().config
    assert find_head_width(config) == width
    assert find_key_heads(config) == key_heads


def test_every_head_has_keys_of_its_own_where_nothing_else_is_said() -> None:
    config = build_chatglm(num_attention_heads=4).config
    assert find_head_width(config) == 8
    assert find_key_heads(config) == 4
