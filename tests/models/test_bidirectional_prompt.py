from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.extraction.builders import build_chatglm, build_chatglm2, build_llama, build_sliding
from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.errors import ConfigError
from tripletune.models.bidirectional_prompt import (
    build_prompt_mask,
    read_prompts_both_ways,
    reads_one_way,
)

CONTEXT = torch.tensor([[True, True, False, False, True, False]])
EXAMPLES = [
    TokenizedExample([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], 8),
    TokenizedExample([16, 17, 18, 19], 1),
    TokenizedExample([20, 21, 22, 23, 24], 3),
]


def build_mask(model: Any, **changes: Any) -> Any:
    given = {"is_context": CONTEXT, "is_real": None, "document_ids": None, "dtype": model.dtype}
    return build_prompt_mask(model.config, **{**given, **changes})


def draw(mask: torch.Tensor) -> list[str]:
    return ["".join(".x"[int(seen)] for seen in row) for row in mask[0, 0]]


def test_tokens_of_a_prompt_see_each_other_and_no_other_document():
    mask = build_mask(build_llama(), document_ids=torch.tensor([[0, 0, 0, 0, 1, 1]]))
    assert draw(mask) == ["xx....", "xx....", "xxx...", "xxxx..", "....x.", "....xx"]


def test_padding_is_seen_by_nothing_but_itself():
    real = torch.tensor([[True, True, True, False, False, False]])
    mask = build_mask(build_llama(), is_context=CONTEXT & real, is_real=real)
    assert draw(mask)[:3] == ["xx....", "xx....", "xxx..."]
    assert [draw(mask)[place][place] for place in (3, 4, 5)] == ["x"] * 3


def test_layers_of_a_window_see_no_further_back():
    model = build_sliding()
    model.config.sliding_window = 2
    masks = build_mask(model, document_ids=torch.zeros(1, 6, dtype=torch.long))
    assert draw(masks["full_attention"]) == [
        "xx..x.", "xx..x.", "xxx.x.", "xxxxx.", "xxxxx.", "xxxxxx",
    ]  # fmt: skip
    assert draw(masks["sliding_attention"]) == [
        "xx..x.", "xx..x.", ".xx.x.", "..xxx.", "...xx.", "....xx",
    ]  # fmt: skip


def test_window_longer_than_the_row_needs_no_mask_of_its_own():
    assert isinstance(build_mask(build_sliding()), torch.Tensor)


def see_alone(model: Any, example: TokenizedExample) -> Any:
    """The mask of one example, written out."""
    length = len(example)
    place = torch.arange(length)
    seen = place[:, None] >= place
    seen = seen | ((place < example.num_prompt_tokens) & (place < length)[:, None])
    if getattr(model.config, "sliding_window", None) is None:
        return seen[None, None]
    near = place > place[:, None] - model.config.sliding_window
    return {"full_attention": seen[None, None], "sliding_attention": (seen & near)[None, None]}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [build_chatglm2, build_llama, build_sliding])
@pytest.mark.parametrize("collator", [PaddedCollator, PackedCollator])
def test_loss_is_that_of_each_example_alone(build, collator, implementation):
    model = build()
    total, count = 0.0, 0
    with torch.no_grad():
        for example in EXAMPLES:
            ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels)
            logits = model(ids, attention_mask=see_alone(model, example)).logits[0]
            total += float(
                torch.nn.functional.cross_entropy(logits[:-1].float(), labels[1:], reduction="sum")
            )
            count += int((labels[1:] != -100).sum())
        model.set_attn_implementation(implementation)
        read_prompts_both_ways(model)
        loss = model(**collator(3, "one_row")(EXAMPLES), use_cache=False).loss
    assert float(loss) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("build", [build_chatglm2, build_llama, build_sliding])
def test_packed_attention_reads_prompts_both_ways(build):
    from tripletune.models.packed_attention import PACKED_ATTENTION, register_packed_attention

    register_packed_attention()
    config = build().config
    setattr(config, "kv_channels" if build is build_chatglm2 else "head_dim", 16)
    torch.manual_seed(0)
    model = type(build())(config).cuda().to(torch.bfloat16)
    read_prompts_both_ways(model)
    batch = {name: value.cuda() for name, value in PackedCollator(3, "one_row")(EXAMPLES).items()}
    losses = []
    for implementation in ("sdpa", PACKED_ATTENTION):
        model.set_attn_implementation(implementation)
        losses.append(model(**batch, use_cache=False).loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


def test_network_that_reads_in_one_direction_only_is_refused():
    config = build_llama().config
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ConfigError, match=r"llama has layers .* only \(.*linear_attention\)"):
        reads_one_way(config, 768)


def test_window_that_the_network_applies_itself_is_refused_when_texts_are_longer():
    config = build_llama().config
    config.sliding_window = 700
    assert reads_one_way(config, 700)
    with pytest.raises(ConfigError, match=r"sees 700 tokens at a time, and .* come to 768; lower"):
        reads_one_way(config, 768)


def test_window_that_comes_with_the_mask_is_no_hindrance():
    assert reads_one_way(build_sliding().config, 768)


def test_chatglm_6b_reads_both_ways_as_it_is():
    assert not reads_one_way(build_chatglm().config, 768)
