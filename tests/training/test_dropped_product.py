from __future__ import annotations

from typing import Any

import pytest
import torch

from tripletune.training.dropped_product import can_drop_inside, project_dropped
from tripletune.training.fast_layers import speed_up_linear_layers

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
WIDTH = 4096


def find_mask(rows: int, width: int, *, seed: int) -> torch.Tensor:
    """What each element is multiplied with, (rows, width) fp32: ones through unit vectors."""
    ones = torch.ones(rows, width, device="cuda")
    parts = []
    for start in range(0, width, 16):
        torch.manual_seed(seed)
        parts.append(project_dropped(ones, torch.eye(width, device="cuda")[start:][:16], 0.1))
    return torch.cat(parts, dim=1)


def test_what_is_not_on_a_gpu_is_left_to_separate_operations():
    assert not can_drop_inside(torch.ones(3, WIDTH), torch.ones(8, WIDTH), 0.1)


class TestOnGpu:
    pytestmark = on_gpu

    def test_wide_inputs_with_dropout_are_taken(self):
        x, down = torch.ones(3, WIDTH, device="cuda"), torch.ones(8, WIDTH, device="cuda")
        assert can_drop_inside(x, down, 0.1)
        assert not can_drop_inside(x, down, 0.0)
        assert not can_drop_inside(x[:, :640], down[:, :640], 0.1)

    def test_mask_zeroes_its_share_without_a_pattern(self):
        mask = find_mask(256, WIDTH, seed=1)
        assert sorted(mask.unique().tolist()) == [0.0, pytest.approx(1 / 0.9, rel=1e-3)]
        kept = (mask > 0).float()
        assert kept.mean().item() == pytest.approx(0.9, abs=0.003)
        assert kept.mean(0).std().item() == pytest.approx((0.09 / 256) ** 0.5, rel=0.2)
        assert kept.mean(1).std().item() == pytest.approx((0.09 / WIDTH) ** 0.5, rel=0.2)
        halves = kept.chunk(2, dim=1)
        neighbours = kept[:, :-1], kept[:, 1:]
        below = kept[:-1], kept[1:]
        for pair in (halves, neighbours, below):
            together = torch.stack([part.flatten() for part in pair])
            assert abs(torch.corrcoef(together)[0, 1].item()) < 0.01

    def test_mask_follows_the_random_state(self):
        first = find_mask(8, WIDTH, seed=1)
        assert torch.equal(find_mask(8, WIDTH, seed=1), first)
        assert not torch.equal(find_mask(8, WIDTH, seed=2), first)

    @pytest.mark.parametrize(("rows", "rank"), [(1, 4), (70, 8), (1030, 24), (130, 64)])
    def test_product_and_gradients_are_those_of_the_masked_input(self, rows, rank):
        mask = find_mask(rows, WIDTH, seed=5)
        torch.manual_seed(0)
        inputs = [
            torch.randn(shape, device="cuda").bfloat16().requires_grad_()
            for shape in ((1, rows, WIDTH), (rank, WIDTH))
        ]
        wide = [x.detach().float().requires_grad_() for x in inputs]
        expected = (wide[0] * mask) @ wide[1].T
        gradient = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, wide, gradient)
        torch.manual_seed(5)
        product = project_dropped(*inputs, 0.1)
        got = torch.autograd.grad(product, inputs, gradient.bfloat16())
        for mine, theirs in zip((product, *got), (expected, *wanted), strict=True):
            assert mine.shape == theirs.shape
            assert ((mine.float() - theirs).norm() / theirs.norm()).item() < 0.01

    def test_compiled_adapted_layer_drops_inputs_of_its_adapter_alone(self):
        import bitsandbytes as bnb
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        base = bnb.nn.Linear4bit(
            WIDTH, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
        ).cuda()
        config = LoraConfig(r=8, lora_alpha=8, lora_dropout=0.1, target_modules=["0"])
        model = get_peft_model(torch.nn.Sequential(base), config).cuda().train()  # type: ignore[arg-type]
        layer: Any = model.base_model.model[0]
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        down.data.copy_(torch.eye(WIDTH, device="cuda")[:8])
        up.data.copy_(torch.eye(64, device="cuda")[:, :8])
        assert speed_up_linear_layers(model, dtype=torch.bfloat16, keep_weights=True) == 1
        x = torch.ones(1, 4000, WIDTH, device="cuda", dtype=torch.bfloat16)
        with torch.no_grad():
            frozen = layer.base_layer(x)
            added = (torch.compile(layer.forward)(x) - frozen)[0].float()  # (N, 64)
        assert added[:, 8:].abs().max().item() == 0.0
        is_dropped = added[:, :8].abs() < 0.5
        assert is_dropped.float().mean().item() == pytest.approx(0.1, abs=0.01)
        assert added[:, :8][~is_dropped].mean().item() == pytest.approx(1 / 0.9, rel=0.01)
