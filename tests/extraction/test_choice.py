from __future__ import annotations

import numpy as np
import pytest
import torch

from tripletune.extraction.choice import choose_tokens


def test_choose_tokens_renormalises_over_the_allowed_ones() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.3, 0.2]]))
    tokens, scores = choose_tokens(logits, [np.array([2, 1]), np.array([], dtype=int)]).read()
    assert tokens == [1, -1]
    assert torch.tensor(scores).exp().tolist() == pytest.approx([2 / 3, 1.0])


def test_choose_tokens_without_guide_takes_the_likeliest_of_all() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    tokens, scores = choose_tokens(logits, None).read()
    assert tokens == [0]
    assert scores == pytest.approx([np.log(0.5)])


def test_choose_tokens_copes_with_rows_that_allow_nothing() -> None:
    nothing = np.array([], dtype=int)
    assert choose_tokens(torch.zeros(2, 3), [nothing, nothing]).read() == ([-1, -1], [0.0, 0.0])
