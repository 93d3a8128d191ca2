from __future__ import annotations

import pytest
import torch

from tests.extraction.builders import build_llama
from tripletune.extraction.batch_reader import evaluation
from tripletune.extraction.generate import GenerationOptions, generate_greedy
from tripletune.models.sdpa import without_cudnn_attention


@pytest.fixture(params=[True, False])
def before(request):
    """What the process's setting is outside."""
    was_enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield request.param
    torch.backends.cuda.enable_cudnn_sdp(was_enabled)


def test_cudnn_is_off_inside_and_as_it_was_afterwards(before):
    def fail():
        with without_cudnn_attention():
            assert not torch.backends.cuda.cudnn_sdp_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.backends.cuda.cudnn_sdp_enabled() is before


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_prompts_and_answers_are_read_without_cudnn(before, method):
    model = build_llama()
    seen = set()
    model.register_forward_pre_hook(
        lambda *_: seen.add(torch.backends.cuda.cudnn_sdp_enabled()), prepend=True
    )
    options = GenerationOptions(end_token_id=33, pad_token_id=3, max_new_tokens=3, method=method)
    generate_greedy(model, [[5, 6], [7]], options)
    assert seen == {False}
    assert torch.backends.cuda.cudnn_sdp_enabled() is before


def test_evaluation_leaves_the_setting_as_it_was(before):
    with evaluation(build_llama()):
        pass
    assert torch.backends.cuda.cudnn_sdp_enabled() is before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_attention_with_a_mask_does_not_call_cudnn():
    from torch.profiler import ProfilerActivity, profile

    query = torch.randn(2, 4, 40, 64, device="cuda", dtype=torch.bfloat16)
    mask = torch.ones(2, 1, 40, 40, device="cuda", dtype=torch.bool).tril()
    # Without acc_events the profiler warns that it keeps the events of one cycle only.
    profiler = profile(activities=[ProfilerActivity.CPU], acc_events=True)
    with without_cudnn_attention(), profiler as noted:
        torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
    names = {event.name for event in noted.events()}
    assert any("attention" in name for name in names)
    assert not any("cudnn" in name for name in names)
