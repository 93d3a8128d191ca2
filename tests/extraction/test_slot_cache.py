from __future__ import annotations

import torch

from tripletune.extraction.slot_cache import SlotCache


def build(num_slots: int = 3, num_places: int = 8) -> SlotCache:
    return SlotCache(2, num_slots, num_places, torch.device("cpu"))


def make_states(rows: int, length: int, start: float = 0.0) -> torch.Tensor:
    """(B, 1, S, 2), every number its own."""
    return torch.arange(start, start + rows * length * 2).view(rows, 1, length, 2)


def test_prompts_are_put_at_the_start_of_their_slots() -> None:
    cache = build()
    prompts = cache.open_slots(torch.tensor([2, 0]), slice(None))
    keys, values = make_states(2, 3), make_states(2, 3, 100.0)
    for layer in range(2):
        assert prompts.get_seq_length(layer) == 0
        given = prompts.update(keys, values, layer)
        assert given[0] is keys
        assert given[1] is values
        assert prompts.get_seq_length(layer) == 3
    for layer in cache.layers:
        torch.testing.assert_close(layer.keys[[2, 0], :, :3], keys)
        torch.testing.assert_close(layer.values[[2, 0], :, :3], values)
        assert not layer.keys[1].any()
        assert not layer.keys[:, :, 3:].any()


def test_prompt_of_several_slots_is_put_into_each() -> None:
    cache = build()
    keys = make_states(2, 3)
    cache.open_slots(torch.tensor([0, 1, 2]), torch.tensor([1, 0, 1])).update(keys, keys, 0)
    torch.testing.assert_close(cache.layers[0].keys[:, :, :3], keys[[1, 0, 1]])


def test_reading_prompts_leaves_no_states_outside_the_slots() -> None:
    prompts = build().open_slots(torch.tensor([0, 1]), slice(None))
    prompts.update(make_states(2, 3), make_states(2, 3), 0)
    assert [layer.keys for layer in prompts.layers] == [None, None]


def test_token_is_written_where_its_slot_is_and_what_is_looked_at_is_given_back() -> None:
    cache = build()
    cache.open_slots(torch.tensor([0, 1, 2]), slice(None)).update(
        make_states(3, 2), make_states(3, 2), 0
    )
    cache.state.places = torch.tensor([2, 4, 3])
    cache.state.length = 5
    token = torch.full((3, 1, 1, 2), 7.0)
    keys, values = cache.update(token, token, 0)
    assert keys.shape == values.shape == (3, 1, 5, 2)
    assert (keys == 7).all(dim=-1).nonzero()[:, [0, 2]].tolist() == [[0, 2], [1, 4], [2, 3]]


def test_slots_that_are_not_selected_are_dropped() -> None:
    cache = build()
    keys = make_states(3, 2)
    cache.open_slots(torch.tensor([0, 1, 2]), slice(None)).update(keys, keys, 0)
    cache.layers[0].select(torch.tensor([2, 0]))
    torch.testing.assert_close(cache.layers[0].keys[:, :, :2], keys[[2, 0]])


def test_query_stands_behind_the_last_place() -> None:
    cache = build()
    cache.state.length = 5
    assert cache.get_seq_length() == 5
    assert cache.get_mask_sizes(1, 0) == (5, 0)
