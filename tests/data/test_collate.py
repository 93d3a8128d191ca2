from __future__ import annotations

import pytest
import torch

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.models.chatglm import ChatGLMForConditionalGeneration, build_position_ids
from tripletune.models.configuration_chatglm import ChatGLMConfig

CONFIG = ChatGLMConfig(
    vocab_size=40,
    hidden_size=32,
    num_layers=2,
    num_attention_heads=2,
    inner_hidden_size=64,
    mask_token_id=30,
    gmask_token_id=31,
    bos_token_id=34,
    eos_token_id=35,
)
SHORT = TokenizedExample([7, 31, 34, 8, 35], 3)
LONG = TokenizedExample([5, 6, 7, 31, 34, 9, 10, 35], 5)


def test_padded_two_rows():
    batch = PaddedCollator(3, "two_rows")([SHORT, LONG])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[7, 31, 34, 8, 35, 3, 3, 3], [5, 6, 7, 31, 34, 9, 10, 35]],
        "labels": [
            [-100, -100, -100, 8, 35, -100, -100, -100],
            [-100, -100, -100, -100, -100, 9, 10, 35],
        ],
        "attention_mask": [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]],
        "position_ids": [
            [[0, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 2, 3, 0, 0, 0]],
            [[0, 1, 2, 3, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3, 4]],
        ],
    }


def test_packed_two_rows_with_row_end():
    batch = PackedCollator(3, "two_rows", pad_to_multiple_of=8)([SHORT, LONG])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[7, 31, 34, 8, 35, 5, 6, 7, 31, 34, 9, 10, 35, 3, 3, 3]],
        "labels": [[-100, -100, -100, 8, 35] + [-100] * 5 + [9, 10, 35, -100, -100, -100]],
        "position_ids": [
            [
                [0, 1, 1, 1, 1, 0, 1, 2, 3, 3, 3, 3, 3, 0, 1, 2],
                [0, 0, 1, 2, 3, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0],
            ]
        ],
    }


def test_packed_one_row_positions_restart():
    batch = PackedCollator(3, "one_row")([SHORT, LONG])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7]]


def test_positions_are_those_the_network_builds():
    batch = PaddedCollator(3, "two_rows")([LONG])
    built = build_position_ids(batch["input_ids"], CONFIG)
    assert torch.equal(batch["position_ids"], built)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_packed_and_padded_give_the_same_loss_and_gradients(implementation):
    torch.manual_seed(0)
    model = ChatGLMForConditionalGeneration(CONFIG)
    model.set_attn_implementation(implementation)
    results = []
    for collator in (
        PaddedCollator(3, "two_rows"),
        PackedCollator(3, "two_rows"),
        PackedCollator(3, "two_rows", pad_to_multiple_of=16),
    ):
        model.zero_grad()
        loss = model(**collator([SHORT, LONG, SHORT])).loss
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    for loss, gradients in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-5, atol=0)
        for ours, expected in zip(gradients, results[0][1], strict=True):
            assert float((ours - expected).abs().max()) <= 1e-4 * float(expected.abs().max() + 1e-8)


def test_packed_loss_is_the_mean_over_examples_alone():
    torch.manual_seed(0)
    model = ChatGLMForConditionalGeneration(CONFIG).eval()
    alone = [
        model(torch.tensor([e.input_ids]), labels=torch.tensor([e.labels])).loss
        for e in (SHORT, LONG)
    ]
    packed = model(**PackedCollator(3, "two_rows")([SHORT, LONG])).loss
    torch.testing.assert_close(packed, (alone[0] * 2 + alone[1] * 3) / 5, rtol=1e-5, atol=0)


@pytest.mark.parametrize("collator", [PaddedCollator, PackedCollator])
def test_labels_are_counted_where_they_are_predicted(collator):
    examples = [TokenizedExample([5, 6, 7, 8], 2), TokenizedExample([9, 10, 11], 1)]
    batch = collator(0, "one_row", count_labels=True)(examples)
    assert batch["num_labels"] == 4
    assert "num_labels" not in collator(0, "one_row")(examples)
