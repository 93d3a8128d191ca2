from __future__ import annotations

import pytest
import torch

from tripletune.models.attention_mask import build_prefix_mask

PICTURE = """
x x . . . . . .
x x . . . . . .
x x x . . . . .
x x x x . . . .
. . . . x x . .
. . . . x x . .
. . . . x x x .
. . . . x x x x
"""


def read(picture: str) -> torch.Tensor:
    rows = [[cell == "x" for cell in line.split()] for line in picture.strip().splitlines()]
    return torch.tensor(rows)


def build(implementation="sdpa", **changes):
    arguments = {
        "num_queries": 8,
        "num_keys": 8,
        "first_query": 0,
        "is_context": torch.tensor([[1, 1, 0, 0, 1, 1, 0, 0]]).bool(),
        "is_real": None,
        "document_ids": torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    } | changes
    return build_prefix_mask(implementation, **arguments)


def test_packed_documents_as_drawn():
    assert torch.equal(build()[0, 0], read(PICTURE))


def test_eager_mask_is_additive():
    mask = build("eager")
    assert mask.dtype == torch.float32
    assert torch.equal(mask[0, 0] == 0, read(PICTURE))
    assert float(mask.min()) == torch.finfo(torch.float32).min


def test_flex_mask_allows_the_same_pairs():
    block_mask = build("flex_attention")
    index = torch.arange(8)
    allowed = torch.stack(
        [torch.stack([block_mask.mask_mod(0, 0, q, k) for k in index]) for q in index]
    )
    assert torch.equal(allowed, read(PICTURE))


def test_flex_mask_knows_the_context_of_every_row():
    """Rows without padding or packing, whose contexts differ in length."""
    contexts = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]]).bool()
    arguments = {"is_context": contexts, "document_ids": None}
    block_mask, expected = build("flex_attention", **arguments), build(**arguments)
    index = torch.arange(8)
    for row in (0, 1):
        rows = [torch.stack([block_mask.mask_mod(row, 0, q, k) for k in index]) for q in index]
        assert torch.equal(torch.stack(rows), expected[row, 0])


def test_padding_is_seen_by_nobody_but_itself():
    real = torch.tensor([[0, 0, 1, 1]]).bool()
    mask = build(num_queries=4, num_keys=4, is_context=None, is_real=real, document_ids=None)
    expected = read("""
x . . .
. x . .
. . x .
. . x x
""")
    assert torch.equal(mask[0, 0], expected)


def test_later_queries_see_everything_before_them():
    mask = build(num_queries=2, num_keys=5, first_query=3, is_context=None, document_ids=None)
    assert torch.equal(mask[0, 0], read("x x x x .\nx x x x x"))


def test_single_query_without_padding_needs_no_mask():
    single = {"num_queries": 1, "num_keys": 5, "first_query": 4}
    assert build(**single, is_context=None, document_ids=None) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_additive_mask_keeps_the_dtype(dtype):
    assert build("eager", dtype=dtype).dtype == dtype


@pytest.mark.parametrize("num_pads", [0, 2])
def test_flex_ranges_equal_the_dense_mask_on_random_rows(num_pads):
    generator = torch.Generator().manual_seed(num_pads)
    for _ in range(50):
        lengths = torch.randint(1, 6, (4,), generator=generator).tolist()
        contexts = [int(torch.randint(0, n + 1, (1,), generator=generator)) for n in lengths]
        document_ids = [i for i, n in enumerate(lengths) for _ in range(n)]
        context = [j < c for n, c in zip(lengths, contexts, strict=True) for j in range(n)]
        real = None
        if num_pads:
            document_ids = [-1] * num_pads + document_ids
            context = [True] * num_pads + context
            real = torch.tensor([[False] * num_pads + [True] * sum(lengths)])
        size = len(document_ids)
        inputs = {
            "num_queries": size,
            "num_keys": size,
            "is_context": torch.tensor([context]),
            "is_real": real,
            "document_ids": torch.tensor([document_ids]),
        }
        mask_mod = build("flex_attention", **inputs).mask_mod
        index = torch.arange(size)
        allowed = mask_mod(0, 0, index[:, None], index[None, :])
        assert torch.equal(allowed, build("sdpa", **inputs)[0, 0])
