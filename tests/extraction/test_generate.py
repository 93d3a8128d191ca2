from __future__ import annotations

from typing import Any

import pytest
import torch

from tripletune.errors import ConfigError
from tripletune.extraction.generate import choose_tokens, generate_greedy

NUM_NEW = 12


def build_chatglm() -> Any:
    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.configuration_chatglm import ChatGLMConfig

    torch.manual_seed(0)
    return ChatGLMForConditionalGeneration(
        ChatGLMConfig(
            vocab_size=40,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=2,
            inner_hidden_size=64,
            mask_token_id=30,
            gmask_token_id=31,
            bos_token_id=32,
            eos_token_id=33,
            initializer_range=0.5,
        )
    ).eval()


def build_chatglm2() -> Any:
    from tripletune.models.chatglm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration

    torch.manual_seed(0)
    return ChatGLM2ForConditionalGeneration(
        ChatGLM2Config(
            padded_vocab_size=40,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=4,
            multi_query_group_num=2,
            kv_channels=8,
            ffn_hidden_size=64,
            eos_token_id=33,
            pad_token_id=3,
            initializer_range=0.5,
        )
    ).eval()


def build_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=33,
            pad_token_id=3,
            initializer_range=0.5,
        )
    ).eval()


def build_sliding() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            eos_token_id=33,
            pad_token_id=3,
            initializer_range=0.5,
        )
    ).eval()


BUILDERS = {
    "chatglm": build_chatglm,
    "chatglm2": build_chatglm2,
    "llama": build_llama,
    "gemma3": build_sliding,
}


def make_prompts(name: str) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    tail = [31, 32] if name == "chatglm" else []
    return [
        torch.randint(4, 29, (length,), generator=generator).tolist() + tail
        for length in (3, 9, 1, 6, 14, 2, 5)
    ]


def stock(model: Any, prompt: list[int], end_token_id: int) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=NUM_NEW,
        eos_token_id=end_token_id,
        pad_token_id=3,
    )
    written: list[int] = output[0, len(prompt) :].tolist()
    return written


@pytest.mark.parametrize("name", BUILDERS)
def test_generate_greedy_writes_what_stock_generate_writes(name: str) -> None:
    model = BUILDERS[name]()
    prompts = make_prompts(name)
    end = stock(model, prompts[1], end_token_id=39)[4]
    results = generate_greedy(
        model, prompts, end_token_id=end, pad_token_id=3, max_new_tokens=NUM_NEW, batch_size=3
    )
    expected = [stock(model, prompt, end) for prompt in prompts]
    written = [[*r.token_ids, *([end] if r.is_complete else [])] for r in results]
    assert written == expected
    assert len({len(ids) for ids in expected}) > 1, "no row ends early; the test shows nothing"


def test_generate_greedy_gives_the_log_probability_of_each_token() -> None:
    model = build_llama()
    prompt = [5, 6, 7]
    (result,) = generate_greedy(model, [prompt], end_token_id=33, pad_token_id=3, max_new_tokens=4)
    ids = torch.tensor([[*prompt, *result.token_ids, *([33] if result.is_complete else [])]])
    with torch.no_grad():
        scores = model(ids).logits.log_softmax(-1)[0]
    expected = [float(scores[2 + i, ids[0, 3 + i]]) for i in range(len(result.log_probabilities))]
    assert result.log_probabilities == pytest.approx(expected, abs=1e-4)


def test_generate_greedy_restores_training_mode() -> None:
    model = build_llama().train()
    generate_greedy(model, [[5]], end_token_id=33, pad_token_id=3, max_new_tokens=2)
    assert model.training


def test_generate_greedy_refuses_an_empty_prompt() -> None:
    with pytest.raises(ConfigError, match="number 1 is empty"):
        generate_greedy(build_llama(), [[5], []], end_token_id=33, pad_token_id=3, max_new_tokens=2)


def test_generate_greedy_refuses_a_batch_size_of_zero() -> None:
    with pytest.raises(ConfigError, match="0, 2; need at least 1"):
        generate_greedy(
            build_llama(), [[5]], end_token_id=33, pad_token_id=3, max_new_tokens=2, batch_size=0
        )


def test_choose_tokens_renormalises_over_the_allowed_ones() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.3, 0.2]]))
    tokens, scores = choose_tokens(logits, [[1, 2], []])
    assert tokens == [1, -1]
    assert torch.tensor(scores).exp().tolist() == pytest.approx([2 / 3, 1.0])
