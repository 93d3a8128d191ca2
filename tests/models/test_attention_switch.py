"""Which networks our attention can stand in for, and that they are left as they were."""

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from tests.extraction.builders import (
    build_chatglm,
    build_chatglm2,
    build_deepseek,
    build_gemma2,
    build_llama,
    build_sliding,
)
from tripletune.models.attention_switch import (
    attends_plainly,
    find_base,
    packed_attention,
    takes_runs,
)
from tripletune.models.packed_attention import PACKED_ATTENTION


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (build_chatglm, True),
        (build_chatglm2, True),
        (build_llama, True),
        (build_sliding, True),
        (build_gemma2, False),
        (build_deepseek, False),
    ],
)
def test_capped_scores_and_keys_wider_than_values_are_not_plain(build: Any, expected: bool) -> None:
    assert attends_plainly(build()) is expected
    assert takes_runs(build()) is expected


def test_dropout_of_weights_is_not_plain() -> None:
    model = build_llama()
    model.config.attention_dropout = 0.1
    assert not attends_plainly(model)


def test_attention_that_was_asked_for_by_name_is_kept() -> None:
    model = build_llama()
    model.set_attn_implementation("eager")
    assert attends_plainly(model)
    assert not takes_runs(model)


def test_model_beneath_an_adapter_is_found() -> None:
    base = build_llama()
    tuned = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    assert find_base(tuned) is base
    assert find_base(base) is base
    assert takes_runs(tuned)


def test_attention_is_switched_inside_and_as_before_afterwards() -> None:
    model = build_llama()
    with packed_attention(model):
        assert model.config._attn_implementation == PACKED_ATTENTION
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(KeyError), packed_attention(model):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
