from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.extraction.builders import build_chatglm, build_chatglm2, build_llama, build_sliding
from tripletune.extraction.batch_reader import BatchReader, accepted_arguments, evaluation


@pytest.mark.parametrize("name", ["chatglm", "llama"])
def test_batch_reader_reads_several_tokens_of_some_rows(name: str) -> None:
    model = build_chatglm() if name == "chatglm" else build_llama()
    tail = [31, 32] if name == "chatglm" else []
    prompts = [[5, 6, 7, *tail], [8, *tail]]
    with torch.no_grad():
        reader = BatchReader(model, prompts, 3)
        reader.read_prompts()
        reader.read_tokens([[9], [10, 11, 12]])
        logits = reader.read_tokens([[13, 14], [15]])
        rows = [[*prompts[0], 9, 13, 14], [*prompts[1], 10, 11, 12, 15]]
        expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_batch_reader_keeps_the_rows_that_are_named() -> None:
    model = build_llama()
    with torch.no_grad():
        reader = BatchReader(model, [[5, 6], [7], [8, 9, 10]], 3)
        reader.read_prompts()
        reader.keep([2, 0])
        logits = reader.read_tokens([[11], [12]])
        expected = [
            model(torch.tensor([ids])).logits[0, -1] for ids in ([8, 9, 10, 11], [5, 6, 12])
        ]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)


def see_prompt(num_prompt: int, length: int, window: int | None = None) -> torch.Tensor:
    """(1, 1, S, S) bool, written out from what a token may see."""
    seen = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        for key in range(length):
            seen[query, key] = key <= query or (query < num_prompt and key < num_prompt)
            seen[query, key] &= window is None or key > query - window
    return seen[None, None]


@pytest.mark.parametrize("build", [build_chatglm2, build_llama, build_sliding])
def test_batch_reader_reads_prompts_both_ways(build: Any) -> None:
    model = build()
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15]]
    with torch.no_grad():
        reader = BatchReader(model, prompts, 3, bidirectional_prompt=True)
        first = reader.read_prompts()
        logits = reader.read_tokens([[16, 17], [18]])
        for place, answer in enumerate(([16, 17], [18])):
            ids = [*prompts[place], *answer]
            mask: Any = see_prompt(len(prompts[place]), len(ids))
            if build is build_sliding:
                window = model.config.sliding_window
                sliding = see_prompt(len(prompts[place]), len(ids), window)
                mask = {"full_attention": mask, "sliding_attention": sliding}
            expected = model(torch.tensor([ids]), attention_mask=mask).logits[0]
            last = len(prompts[place]) - 1
            torch.testing.assert_close(first[place], expected[last], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(logits[place], expected[-1], atol=1e-4, rtol=1e-4)


def test_chatglm_6b_reads_prompts_both_ways_by_itself() -> None:
    prompts = [[5, 6, 7, 31, 32], [8, 31, 32]]
    with torch.no_grad():
        readers = [
            BatchReader(build_chatglm(), prompts, 3, bidirectional_prompt=way) for way in (0, 1)
        ]
        plain, asked = (reader.read_prompts() for reader in readers)
    assert torch.equal(plain, asked)


@pytest.mark.parametrize(("rows", "width"), [(1, 64), (16, 4), (100, 1)])
def test_batch_reader_feeds_more_tokens_to_fewer_rows(rows: int, width: int) -> None:
    assert BatchReader(build_llama(), [[5]], 3).choose_width(rows) == width


def test_accepted_arguments_looks_beneath_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(build_llama(), LoraConfig(target_modules=["q_proj"]))
    assert "logits_to_keep" in accepted_arguments(tuned)


def test_evaluation_restores_the_mode_after_an_error() -> None:
    model = build_llama().train()
    modes = []

    def fail() -> None:
        with evaluation(model):
            modes.append(model.training)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (modes, model.training) == ([False], True)
