from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training.plan_cases import CHATGLM
from tripletune.training.memory import (
    Moment,
    Policy,
    Row,
    predict_evaluation,
    predict_generation,
    predict_training,
    saved_bytes,
)
from tripletune.training.network_size import NetworkSize

SMALL = NetworkSize(
    weight_bytes=1000,
    frozen_parameters=0,
    trainable=10,
    layers=3,
    width=8,
    query_width=8,
    key_width=4,
    heads=2,
    mlp_in=32,
    mlp_out=32,
    vocabulary=100,
    largest_weight=256,
    norms=(2, True),
    head_norms=False,
    adapted_widths=(8,),
    adapted_mlp_inputs=(),
    is_native=True,
    rotates_apart=False,
)
GATED = replace(SMALL, mlp_out=16, norms=(2, False))
MIB64 = 64 << 20
EAGER, COMPILED = Policy(0, compiled=False), Policy(0, compiled=True)


def saved_by_autograd(module: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a forward pass saves, parameters not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x)
    return sum(found.values())


def test_eager_block_by_hand():
    # Queries, keys, values, output: 4*8 + 4*4; log-sums: 4*2; norm: 2*8; adapter: 3*8.
    # MLP: 2*32; norm: 2*8.
    assert saved_bytes(SMALL, EAGER) == (48 + 8 + 16 + 24, 64 + 16)


def test_compiled_block_by_hand():
    # Stream and norm: 2*8 each; the first adapter adds nothing.
    assert saved_bytes(SMALL, COMPILED) == (48 + 8 + 32, 64 + 16)
    more = replace(SMALL, adapted_widths=(8, 8, 32))
    assert saved_bytes(more, COMPILED)[0] == 48 + 8 + 32 + 3 * (8 + 32)


def test_compiled_adapters_with_dropout_inside_save_the_inputs_of_the_mlp_once():
    wide = replace(
        SMALL,
        width=4096,
        query_width=4096,
        mlp_out=16384,
        adapted_widths=(4096, 4096, 4096, 4096, 16384),
        adapted_mlp_inputs=(4096, 16384),
    )
    attention = replace(wide, adapted_widths=(4096, 4096), adapted_mlp_inputs=())
    for policy in (COMPILED, replace(COMPILED, dropout=False)):
        extra = saved_bytes(wide, policy)[0] - saved_bytes(attention, policy)[0]
        assert extra == 2 * 4096 + 2 * 16384


def test_gated_block_with_norms_in_fp32_by_hand():
    assert saved_bytes(GATED, EAGER) == (48 + 8 + 32 + 24, 64 + 32 + 32)
    assert saved_bytes(GATED, COMPILED) == (48 + 8 + 32, 64 + 16)


def test_no_dropout_saves_no_mask():
    assert saved_bytes(SMALL, replace(EAGER, dropout=False))[0] == saved_bytes(SMALL, EAGER)[0] - 8


class Frozen(nn.Module):
    """A frozen layer whose input is not saved, as the NF4 layers are."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, width, dtype=torch.bfloat16), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


@pytest.mark.parametrize("is_gated", [False, True])
def test_saved_bytes_are_those_that_autograd_saves_of_norm_and_mlp(is_gated):
    from tripletune.models.chatglm import ChatGLMMLP
    from tripletune.models.chatglm2 import ChatGLM2MLP, RMSNorm
    from tripletune.models.configuration_chatglm import ChatGLMConfig
    from tripletune.models.configuration_chatglm2 import ChatGLM2Config

    width, inner, tokens = 64, 192, 50
    mlp = (
        ChatGLM2MLP(ChatGLM2Config(hidden_size=width, ffn_hidden_size=inner, num_layers=1))
        if is_gated
        else ChatGLMMLP(ChatGLMConfig(hidden_size=width, inner_hidden_size=inner, num_layers=1))
    )
    outputs = 2 * inner if is_gated else inner
    mlp.dense_h_to_4h = Frozen(width, outputs)  # type: ignore[assignment]
    mlp.dense_4h_to_h = Frozen(inner, width)  # type: ignore[assignment]
    norm = RMSNorm(width, 1e-5) if is_gated else nn.LayerNorm(width)
    block = nn.Sequential(norm.bfloat16().requires_grad_(False), mlp)
    x = torch.randn(1, tokens, width, dtype=torch.bfloat16, requires_grad=True)
    size = replace(SMALL, width=width, mlp_in=outputs, mlp_out=inner, norms=(2, not is_gated))
    statistics = 8 * tokens
    predicted = saved_bytes(size, EAGER)[1] * tokens
    assert predicted <= saved_by_autograd(block, x) <= predicted + statistics


def test_training_by_hand_keeps_everything_of_every_block():
    row = Row(tokens=1000, labelled=300)
    block, last = 1000 * (96 + 80), 1000 * 96 + 300 * 80
    moment = predict_training(replace(SMALL, vocabulary=200), row, EAGER)
    head = 2 * 300 * 200 + 6 * 8 * 300
    gradients = 1000 * (16 + 2 * 32 + 16)  # attention: stream, projections twice, output
    tables = 8 * 4 * 1000 + 16 * 1000
    assert head > gradients
    assert moment == Moment(1000, 18 * 10, 2 * block + last, head + tables + MIB64)


def test_training_with_checkpoints_by_hand_keeps_inputs_and_one_block():
    row = Row(tokens=1000, labelled=10)
    moment = predict_training(SMALL, row, replace(EAGER, checkpointed=3))
    inputs, block = 3 * 16 * 1000, 1000 * (96 + 80)
    gradients = 1000 * (16 + 4 * 32)  # MLP: stream, twice its first product
    tables = 8 * 4 * 1000 + 16 * 1000
    assert moment == Moment(1000, 18 * 10, inputs + block, gradients + tables + MIB64)


def test_training_of_other_networks_computes_every_token_in_the_last_block():
    row = Row(tokens=1000, labelled=10)
    others = predict_training(replace(SMALL, is_native=False), row, EAGER)
    assert others.kept - predict_training(SMALL, row, EAGER).kept == 990 * 80


def test_every_checkpointed_block_of_chatglm_saves_memory():
    row = Row(8192, 2600)
    totals = [predict_training(CHATGLM, row, Policy(n, False)).total for n in range(25)]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize(
    ("tokens", "checkpointed", "gigabytes"),
    [(8192, 0, 25.001), (4096, 28, 5.761), (5248, 28, 6.189)],
)
def test_prediction_is_near_what_an_h100_measured(tokens, checkpointed, gigabytes):
    # benchmarks/train_throughput.py: packed, packed-checkpointed and its rows of 5,248; a third of
    # a row is labelled.
    row = Row(tokens, tokens // 3)
    predicted = predict_training(CHATGLM, row, Policy(checkpointed, compiled=True)).total
    assert predicted == pytest.approx(gigabytes * 10**9, rel=0.01)


def test_offloaded_inputs_are_three_at_most():
    row = Row(1000, 10)
    full = predict_training(CHATGLM, row, Policy(28, True))
    away = predict_training(CHATGLM, row, Policy(28, True, offload=True))
    assert full.kept - away.kept == 25 * 2 * 4096 * 1000


def test_evaluation_by_hand():
    # A token: stream and norm, 2 * 2 * 8; the MLP product before and after its function.
    moment = predict_evaluation(SMALL, Row(1000, 1))
    assert moment == Moment(1000, 120, 0, 1000 * (32 + 4 * 32) + 512 + MIB64)


def test_generation_by_hand():
    # 4 slots of 64 places; a token's keys and values: 3 layers * 2 * 4 * 2 bytes.
    moment = predict_generation(SMALL, batch=4, sentences=4, prompt=30, answer=20)
    reading = 4 * 30 * (32 + 4 * 32) + 512
    assert reading > 10 * 4 * 100
    assert moment == Moment(1000, 120, 48 * 4 * 64, reading + MIB64)


def test_generation_of_waiting_sentences_reads_beside_the_logits_of_a_step():
    moment = predict_generation(SMALL, batch=4, sentences=5, prompt=30, answer=20)
    reading = 4 * 30 * (32 + 4 * 32) + 512
    assert moment.passing == reading + 10 * 4 * 100 + MIB64


def test_rotation_of_its_own_is_counted():
    apart = replace(SMALL, rotates_apart=True)
    moment = predict_generation(apart, batch=4, sentences=4, prompt=30, answer=20)
    # The residual stream twice, all projections in half precision, 18 bytes of queries and keys.
    assert moment.passing == 4 * 30 * (4 * 8 + 2 * (8 + 2 * 4) + 18 * 8) + 512 + MIB64


def test_generation_of_a_real_network_is_mostly_keys_and_values():
    # ChatGLM-6B: 458,752 bytes a token; 16 slots of 768 places.
    moment = predict_generation(CHATGLM, batch=16, sentences=16, prompt=512, answer=256)
    assert moment.kept == 458_752 * 16 * 768


def test_scaled_moment_leaves_what_is_loaded():
    assert Moment(5, 4, 30, 20).scaled(1.5) == Moment(5, 4, 45, 30)
