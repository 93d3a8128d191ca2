"""One query a slot, against softmax over the keys it may see; states written where they belong."""

import pytest
import torch
from torch import Tensor

from tripletune.models.slot_attention import (
    attend_slots,
    has_kernels,
    limit_slots,
    put_in_slots,
)

NUM_PLACES = 200
RUNS = [(0, 199), (5, 5), (37, 120), (63, 64), (0, 0)]


def attend_one_by_one(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """(B, 1, H, D): each slot's run cut out, each head by itself."""
    outputs = []
    for row, (first, last) in enumerate(RUNS):
        for head in range(query.shape[1]):
            group = head * key.shape[1] // query.shape[1]
            keys = key[row, group, first : last + 1].double()
            values = value[row, group, first : last + 1].double()
            weights = (keys @ query[row, head, 0].double() * scaling).softmax(0)
            outputs.append(weights @ values)
    return torch.stack(outputs).view(len(RUNS), 1, query.shape[1], -1)


def make_slots(heads: int, groups: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries as a projection leaves them, and the first places of larger slots."""
    torch.manual_seed(0)
    query = torch.randn(len(RUNS), 1, heads, width).transpose(1, 2)
    key, value = torch.randn(2, len(RUNS), groups, NUM_PLACES + 56, width).unbind(0)
    return query, key[:, :, :NUM_PLACES], value[:, :, :NUM_PLACES]


@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 4, 8), (4, 2, 16), (6, 1, 32)])
def test_slot_sees_the_keys_of_its_run_alone(heads: int, groups: int, width: int) -> None:
    query, key, value = make_slots(heads, groups, width)
    output = attend_slots(query, key, value, torch.tensor(RUNS).int(), scaling=0.3)
    expected = attend_one_by_one(query, key, value, 0.3)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("heads", "groups", "width"),
    [(4, 4, 16), (32, 32, 128), (2, 2, 256), (4, 2, 64), (32, 2, 128), (12, 4, 256), (7, 1, 32)],
)
def test_kernels_read_nothing_but_the_run(
    heads: int, groups: int, width: int, dtype: torch.dtype
) -> None:
    query, key, value = (part.to("cuda", dtype) for part in make_slots(heads, groups, width))
    assert has_kernels(query, width)
    expected = attend_one_by_one(query, key, value, width**-0.5)
    for row, (first, last) in enumerate(RUNS):
        for part in (key, value):
            part[row, :, :first] = part[row, :, last + 1 :] = float("nan")
    runs = torch.tensor(RUNS, device="cuda").int()
    output = attend_slots(query, key, value, runs, scaling=width**-0.5)
    assert output.dtype == dtype
    limit = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert (output.double() - expected).norm() / expected.norm() < limit


def check_put(device: str, width: int, length: int) -> None:
    torch.manual_seed(0)
    keys, values = (torch.randn(5, 2, 50, width, device=device) for _ in range(2))
    # As a projection leaves them: token by token, head by head.
    states = torch.randn(2, 3, length, 2, width, device=device).transpose(2, 3)
    expected_keys, expected_values = keys.clone(), values.clone()
    where = [(3, 1, 4), (0, 1, 0), (4, 2, 50 - length), (1, 0, 7)]
    for slot, row, place in where:
        expected_keys[slot, :, place : place + length] = states[0, row]
        expected_values[slot, :, place : place + length] = states[1, row]
    slots, rows, places = torch.tensor(where, device=device).unbind(1)
    put_in_slots(
        keys, values, *states.unbind(0), slots=slots.contiguous(), rows=rows.contiguous(),
        places=places.contiguous(),
    )  # fmt: skip
    assert torch.equal(keys, expected_keys)
    assert torch.equal(values, expected_values)


@pytest.mark.parametrize("length", [1, 40])
def test_states_are_put_where_each_slot_is(length: int) -> None:
    check_put("cpu", 8, length)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("width", [8, 16, 128])
def test_states_are_put_where_each_slot_is_on_a_gpu(width: int, length: int) -> None:
    check_put("cuda", width, length)


def test_window_limits_runs_that_are_longer() -> None:
    runs = torch.tensor([[0, 9], [7, 9], [4, 4]]).int()[:, None, :, None]
    limited = limit_slots(runs, 4)
    assert limited.shape == runs.shape
    assert limited.flatten(1).tolist() == [[6, 9], [7, 9], [4, 4]]
    assert limited.dtype == torch.int32
