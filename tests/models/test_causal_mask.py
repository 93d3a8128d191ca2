from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.cache_utils import DynamicCache, StaticCache

from tripletune.errors import DataError
from tripletune.models.causal_mask import (
    build_block_mask,
    build_causal_mask,
    convert_explicit_mask,
    give_runs_to_layers,
)
from tripletune.models.configuration_chatglm2 import ChatGLM2Config
from tripletune.models.packed_attention import find_seen_runs

EMBEDS = torch.zeros(2, 3, 4)
CAUSAL = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def read_block_mask(mask) -> list[list[list[int]]]:
    rows, _, queries, keys = mask.shape
    return [
        [
            [int(mask.mask_mod(*map(torch.tensor, (row, 0, query, key)))) for key in range(keys)]
            for query in range(queries)
        ]
        for row in range(rows)
    ]


def build_config(implementation: str) -> ChatGLM2Config:
    config = ChatGLM2Config(num_layers=1)
    config._attn_implementation = implementation
    return config


def test_block_mask_is_causal_without_padding():
    assert read_block_mask(build_block_mask(EMBEDS, None, None, None)) == [CAUSAL]


def test_block_mask_hides_padding_keys_and_leaves_no_row_empty():
    attention_mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert read_block_mask(build_block_mask(EMBEDS, attention_mask, None, None)) == [
        [[1, 0, 0], [0, 1, 0], [0, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
    ]


def test_block_mask_separates_documents_where_positions_restart():
    positions = torch.tensor([[0, 1, 0], [0, 1, 2]])
    assert read_block_mask(build_block_mask(EMBEDS, None, positions, None)) == [
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]],
        CAUSAL,
    ]


def test_block_mask_counts_cached_keys():
    cache = DynamicCache()
    cache.update(torch.zeros(2, 1, 2, 4), torch.zeros(2, 1, 2, 4), 0)
    positions = torch.tensor([[0, 1, 2], [0, 1, 2]])  # no restart: the cache comes before
    assert read_block_mask(build_block_mask(EMBEDS, None, positions, cache)) == [
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    ]


def test_block_mask_covers_the_room_of_a_static_cache_and_keeps_its_place():
    config = ChatGLM2Config(
        num_layers=1, kv_channels=4, multi_query_group_num=1, num_attention_heads=1
    )
    cache = StaticCache(config=config, max_cache_len=4)
    cache.update(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4), 0)
    mask = build_block_mask(torch.zeros(1, 2, 4), torch.ones(1, 3), None, cache)
    cache.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), 0)
    assert read_block_mask(mask) == [[[1, 1, 0, 0], [1, 1, 1, 0]]]


def test_plain_causal_attention_needs_no_mask_with_sdpa():
    assert build_causal_mask(build_config("sdpa"), EMBEDS, None, None, None) is None


def test_sdpa_mask_is_boolean():
    attention_mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    mask = build_causal_mask(build_config("sdpa"), EMBEDS, attention_mask, None, None)
    assert mask[:, 0].int().tolist() == [[[0, 0, 0], [0, 1, 0], [0, 1, 1]], CAUSAL]


def test_flex_attention_gets_a_block_mask():
    mask = build_causal_mask(build_config("flex_attention"), EMBEDS, None, None, None)
    assert read_block_mask(mask) == [CAUSAL]


def test_block_mask_is_passed_on():
    mask = build_block_mask(EMBEDS, None, None, None)
    assert build_causal_mask(build_config("flex_attention"), EMBEDS, mask, None, None) is mask


def test_explicit_bool_mask_becomes_what_each_implementation_takes():
    mask = torch.tensor([[True, False], [True, True]]).view(1, 1, 2, 2)
    lowest = torch.finfo(torch.float16).min
    eager = convert_explicit_mask(mask, "eager", torch.float16)
    assert eager.dtype == torch.float16
    assert eager[0, 0].tolist() == [[0, lowest], [0, 0]]
    assert convert_explicit_mask(mask, "sdpa", torch.float16) is mask
    flex = convert_explicit_mask(mask, "flex_attention", torch.float16)
    assert read_block_mask(flex) == [[[1, 0], [1, 1]]]


def test_explicit_additive_mask_gets_the_dtype_of_the_queries():
    mask = torch.zeros(1, 1, 2, 2)
    assert convert_explicit_mask(mask, "sdpa", torch.bfloat16).dtype == torch.bfloat16


def test_additive_mask_with_flex_attention_is_refused():
    with pytest.raises(DataError, match=r"torch\.float32 of four dimensions; flex_attention"):
        convert_explicit_mask(torch.zeros(1, 1, 2, 2), "flex_attention", torch.float32)


def test_layers_of_a_window_get_runs_that_are_limited_already():
    runs = find_seen_runs(torch.zeros(1, 5, dtype=torch.long))
    config = SimpleNamespace(
        model_type="qwen3", layer_types=["full_attention", "sliding_attention"], sliding_window=2
    )
    masks = give_runs_to_layers(config, runs)
    assert torch.equal(masks["full_attention"], runs[:, None])
    assert masks["sliding_attention"].shape == (1, 1, 1, 4, 5)
    assert masks["sliding_attention"][0, 0, 0, 0].tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "llama"},
        {"model_type": "mistral", "layer_types": ["sliding_attention"]},
        {"model_type": "qwen3", "layer_types": ["full_attention"]},
    ],
)
def test_layers_that_are_all_alike_get_the_runs_as_they_are(fields):
    runs = find_seen_runs(torch.zeros(1, 5, dtype=torch.long))
    assert give_runs_to_layers(SimpleNamespace(**fields), runs) is runs
