from __future__ import annotations

import pytest
import torch

from tests.extraction.builders import build_chatglm, build_llama
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
