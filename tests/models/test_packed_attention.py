"""Attention over packed rows: what each token sees as runs, and the kernels against plain sdpa."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tripletune.errors import ModelError
from tripletune.models.packed_attention import (
    attend_packed,
    attend_runs,
    find_seen_runs,
    limit_runs,
)

DOCUMENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5)


def lay_out(documents: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Document numbers and context flags, (1, S) each, of documents of (context, answer) tokens."""
    ids = [n for n, parts in enumerate(documents) for _ in range(sum(parts))]
    context = [place < parts[0] for parts in documents for place in range(sum(parts))]
    return torch.tensor([ids], dtype=torch.long), torch.tensor([context], dtype=torch.bool)


def allowed_pairs(document_ids: Tensor, is_context: Tensor) -> Tensor:
    """(B, S, S) bool written down from the rule, queries first."""
    index = torch.arange(document_ids.shape[1])
    same = document_ids[:, :, None] == document_ids[:, None, :]
    return same & ((index[None, :] <= index[:, None]) | is_context[:, None, :])


@given(DOCUMENTS.filter(lambda documents: any(map(sum, documents))), st.booleans())
def test_runs_stand_for_the_whole_mask(documents: list[tuple[int, int]], causal: bool) -> None:
    document_ids, is_context = lay_out(documents)
    if causal:
        is_context = torch.zeros_like(is_context)
    runs = find_seen_runs(document_ids, None if causal else is_context)
    first_key, last_key, first_query, last_query = runs[:, 0].unbind(1)
    index = torch.arange(document_ids.shape[1])
    seen = allowed_pairs(document_ids, is_context)
    as_query = (index >= first_key[:, :, None]) & (index <= last_key[:, :, None])
    as_key = (index[:, None] >= first_query[:, None]) & (index[:, None] <= last_query[:, None])
    assert torch.equal(as_query, seen)
    assert torch.equal(as_key, seen)


def test_runs_are_int32_of_four_rows() -> None:
    runs = find_seen_runs(torch.tensor([[0, 0, 0, 1, 1]]), torch.tensor([[1, 1, 0, 1, 0]]).bool())
    expected = [[0, 0, 0, 3, 3], [1, 1, 2, 3, 4], [0, 0, 2, 3, 4], [2, 2, 2, 4, 4]]
    assert torch.equal(runs, torch.tensor([[expected]], dtype=torch.int32))


@given(DOCUMENTS.filter(lambda documents: any(map(sum, documents))), st.integers(1, 9))
def test_limited_runs_stand_for_the_mask_of_a_window(
    documents: list[tuple[int, int]], window: int
) -> None:
    document_ids, is_context = lay_out(documents)
    runs = limit_runs(find_seen_runs(document_ids, is_context), window)
    assert runs.dtype == torch.int32
    first_key, last_key, first_query, last_query = runs[:, 0].unbind(1)
    index = torch.arange(document_ids.shape[1])
    seen = allowed_pairs(document_ids, is_context) & (index > index[:, None] - window)
    as_query = (index >= first_key[:, :, None]) & (index <= last_key[:, :, None])
    as_key = (index[:, None] >= first_query[:, None]) & (index[:, None] <= last_query[:, None])
    assert torch.equal(as_query, seen)
    assert torch.equal(as_key, seen)


@pytest.mark.parametrize(
    "asked", [{"softcap": 50.0}, {"s_aux": 1}, {"position_bias": 0}, {"dropout": 0.1}]
)
def test_what_the_kernels_do_not_compute_is_refused(asked: dict[str, float]) -> None:
    runs = find_seen_runs(torch.zeros(1, 5, dtype=torch.long))
    query = torch.zeros(1, 2, 5, 16)
    with pytest.raises(ModelError, match=rf"Module asks for {next(iter(asked))}=.*flex_attention"):
        attend_packed(nn.Module(), query, query, query, runs, **asked)


def test_boolean_mask_goes_to_sdpa() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 5, 16).unbind(0)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    layer = nn.Module()
    layer.is_causal = True
    output, probabilities = attend_packed(layer, query, key, value, mask, scaling=0.3)
    scores = (query @ key.transpose(2, 3) * 0.3).masked_fill(~mask, float("-inf"))
    expected = (scores.softmax(-1) @ value).transpose(1, 2)
    torch.testing.assert_close(output, expected)
    assert probabilities is None


@pytest.mark.parametrize(
    ("dims", "window", "expected"),
    [(4, None, [[0, 6], [2, 2]]), (4, 3, [[4, 6], [2, 2]]), (5, 3, [[0, 6], [2, 2]])],
)
def test_one_query_of_a_slot_sees_its_run_and_no_more_than_the_window(
    dims: int, window: int | None, expected: list[list[int]]
) -> None:
    """In masks of five dimensions windows have been applied already."""
    torch.manual_seed(0)
    runs = torch.tensor([[0, 6], [2, 2]]).int()
    mask = runs[:, None, :, None] if dims == 4 else runs[:, None, None, :, None]
    query, key = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 9, 8)
    output, _ = attend_packed(nn.Module(), query, key, key, mask, sliding_window=window)
    for row, (first, last) in enumerate(expected):
        seen = key[row, :, first : last + 1].repeat_interleave(2, dim=0)  # (H, K, D)
        weights = (query[row] @ seen.transpose(1, 2) / 8**0.5).softmax(-1)
        torch.testing.assert_close(output[row, 0], (weights @ seen)[:, 0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 4, 128), (8, 2, 64), (4, 1, 256)])
@pytest.mark.parametrize("causal", [False, True])
def test_kernels_equal_plain_attention(heads: int, groups: int, width: int, causal: bool) -> None:
    torch.manual_seed(0)
    lengths = [(45, 30), (1, 0), (120, 70), (0, 9), (64, 64), (3, 200)]
    document_ids, is_context = (t.cuda() for t in lay_out(lengths))
    if causal:
        is_context = torch.zeros_like(is_context)
    seen = allowed_pairs(document_ids.cpu(), is_context.cpu()).cuda()[:, None]
    length = document_ids.shape[1]
    inputs = [
        torch.randn(1, length, n, width, device="cuda").bfloat16().transpose(1, 2).requires_grad_()
        for n in (heads, groups, groups)
    ]
    query, key, value = (x.detach().float().requires_grad_() for x in inputs)
    wide = [x.repeat_interleave(heads // groups, dim=1) for x in (key, value)]
    scores = (query @ wide[0].transpose(2, 3) / width**0.5).masked_fill(~seen, float("-inf"))
    expected = (scores.softmax(-1) @ wide[1]).transpose(1, 2)
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (query, key, value), gradient)
    runs = find_seen_runs(document_ids, is_context).squeeze(1)
    output = attend_runs(*inputs, runs, scaling=width**-0.5)
    got = torch.autograd.grad(output, inputs, gradient.bfloat16())
    for mine, theirs in zip((output, *got), (expected, *wanted), strict=True):
        assert (mine.float() - theirs).norm() / theirs.norm() < 0.01
