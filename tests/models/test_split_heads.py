"""One pass from a fused projection to heads, against the networks' own way on a GPU."""

import pytest
import torch
from torch import Tensor

from tripletune.models.chatglm2_rotary import rotate_interleaved, spread_rotary
from tripletune.models.chatglm_positions import build_rotary, rotate_two_rows
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.split_heads import LowRankSum, project_apart, split_heads

LENGTH, WIDTH = 37, 32


def by_neighbours(mixed: Tensor, cosine: Tensor, sine: Tensor) -> list[Tensor]:
    """ChatGLM2: 4 queries, then 2 keys, then 2 values."""
    parts = [part.unflatten(-1, (-1, WIDTH)) for part in mixed.split([128, 64, 64], dim=-1)]
    turned = [
        rotate_interleaved(part.transpose(1, 2), cosine, sine).transpose(1, 2) for part in parts[:2]
    ]
    return [*turned, parts[2]]


def by_halves(mixed: Tensor, cosine: Tensor, sine: Tensor) -> list[Tensor]:
    """ChatGLM: query, key and value of each of 4 heads."""
    query, key, value = mixed.unflatten(-1, (4, -1)).chunk(3, dim=-1)
    return [rotate_two_rows(query, cosine, sine), rotate_two_rows(key, cosine, sine), value]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("by_head", [False, True])
def test_kernel_equals_the_networks_own_way(by_head: bool) -> None:
    torch.manual_seed(0)
    total = 384 if by_head else 256
    mixed = torch.randn(2, LENGTH, total, device="cuda", requires_grad=True)
    if by_head:
        config = ChatGLMConfig(hidden_size=4 * WIDTH, num_attention_heads=4, num_layers=1)
        positions = torch.randint(0, 50, (2, 2, LENGTH), device="cuda")
        rotary = build_rotary(positions, config)
        expected = by_halves(mixed, *rotary)
        tables = [table[..., 1, :].flatten(2) for table in rotary]
    else:
        cosine, sine = torch.randn(2, 1, 1, LENGTH, WIDTH // 4, device="cuda").unbind(0)
        expected = by_neighbours(mixed, cosine, sine)
        tables = list(spread_rotary(cosine, sine))
    got = split_heads(
        mixed, *tables, heads=4, groups=4 if by_head else 2, by_head=by_head,
        distance=WIDTH // 4 if by_head else 1,
    )  # fmt: skip
    gradients = [torch.randn_like(part) for part in expected]
    (wanted,) = torch.autograd.grad(expected, mixed, gradients)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(torch.autograd.grad(got, mixed, gradients)[0], wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("rank", [4, 24])
def test_low_rank_product_is_added_on_the_way(by_head: bool, rank: int) -> None:
    torch.manual_seed(0)
    total, groups = (384, 4) if by_head else (256, 2)
    parts = [
        (scale * torch.randn(shape, device="cuda")).bfloat16().requires_grad_()
        for scale, shape in (
            (1.0, (2, LENGTH, total)),
            (1.0, (2, LENGTH, rank)),
            (0.3, (total, rank)),
        )
    ]
    angle = torch.randn(2, LENGTH, WIDTH // 2, device="cuda")
    tables = (angle.cos(), angle.sin())
    options = {
        "heads": 4, "groups": groups, "by_head": by_head, "distance": WIDTH // 4 if by_head else 1,
    }  # fmt: skip
    wide = [part.detach().float().requires_grad_() for part in parts]
    expected = split_heads(wide[0] + wide[1] @ wide[2].T, *tables, **options)
    got = split_heads(LowRankSum(*parts), *tables, **options)
    gradients = [torch.randn_like(part) for part in expected]
    wanted = torch.autograd.grad(expected, wide, gradients)
    found = torch.autograd.grad(got, parts, [gradient.bfloat16() for gradient in gradients])
    for mine, theirs in zip((*got, *found), (*expected, *wanted), strict=True):
        assert (mine.float() - theirs).norm() / theirs.norm() < 0.01


def test_layer_that_keeps_no_sum_apart_is_called() -> None:
    layer = torch.nn.Linear(3, 5)
    x = torch.randn(2, 3)
    assert torch.equal(project_apart(layer, x), layer(x))
