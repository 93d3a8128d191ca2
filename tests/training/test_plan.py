from __future__ import annotations

import pytest

from tripletune.config import TrainingSettings
from tripletune.errors import ResourceError
from tripletune.training.plan import NetworkSize, measure_network, plan_memory

GIB = 2**30
CHATGLM = NetworkSize(
    loaded_bytes=4 * GIB,
    trainable=3_670_016,
    layers=28,
    width=4096,
    mlp_width=16384,
    vocabulary=130_528,
    largest_weight=4096 * 16384,
)


def plan(available_gib, lengths=(100, 120, 60, 200, 40), **changes):
    settings = TrainingSettings(**{"batch_size": 4, **changes})
    return plan_memory(CHATGLM, lengths, settings, available=int(available_gib * GIB))


def test_counts_the_longest_examples_of_a_batch_rounded_up_to_128():
    assert plan(80).tokens == 512  # 200 + 120 + 100 + 60 = 480


def test_parts_by_hand():
    parts = list(plan(80).parts.values())
    per_layer = 2 * (9 * 4096 + 2.75 * 16384) * 512
    assert parts == [
        4 * GIB,
        12 * 3_670_016,
        4 * 512 * 130_528 + 2 * 4096 * 16384,
        int(per_layer) * 28,
    ]


def test_roomy_card_does_not_checkpoint():
    chosen = plan(80)
    assert chosen.checkpointing is False
    assert chosen.total == sum(chosen.parts.values())


def test_small_card_checkpoints():
    needed = plan(80).total / GIB
    chosen = plan(needed)  # all of the card would be needed, and 8 % is kept free
    assert chosen.checkpointing is True
    assert chosen.total < plan(80).total


def test_checkpointing_that_is_forbidden_is_not_chosen():
    with pytest.raises(ResourceError, match="allow gradient checkpointing"):
        plan(plan(80).total / GIB, gradient_checkpointing=False)


def test_nothing_fits_says_what_to_lower():
    with pytest.raises(ResourceError, match=r"micro-batch of 512 tokens .* --batch_size \(now 4\)"):
        plan(4)


def test_render_lists_every_part_and_the_peak():
    shown = plan(80).render()
    assert shown.splitlines()[0] == "显存计划:"
    assert all(name in shown for name in plan(80).parts)
    assert "合计 (预计峰值)" in shown


def test_measure_network_counts_a_tiny_model():
    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.configuration_chatglm import ChatGLMConfig
    from tripletune.training.adapters import add_lora

    model = ChatGLMForConditionalGeneration(
        ChatGLMConfig(
            vocab_size=40,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=2,
            inner_hidden_size=64,
        )
    )
    loaded = sum(parameter.nbytes for parameter in model.parameters())
    adapted = add_lora(
        model, rank=2, alpha=4, dropout=0.0, target_modules=("dense",), model_name="tiny"
    )
    trainable = 2 * (2 * 32 + 2 * 32)
    assert measure_network(adapted) == NetworkSize(
        loaded_bytes=loaded + 4 * trainable,
        trainable=trainable,
        layers=2,
        width=32,
        mlp_width=64,
        vocabulary=40,
        largest_weight=32 * 96,
    )
