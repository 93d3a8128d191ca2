from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tripletune.extraction import choice
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


@pytest.mark.parametrize("places", [[3, 0, 2], [1, 2, 3], [3]])
@pytest.mark.parametrize("num_cached", [1, 8, 10**6])
def test_choose_tokens_reads_the_rows_that_are_named(
    places: list[int], num_cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tripletune.extraction.choice._CACHED_NUMBERS", num_cached)
    logits = torch.tensor([[4.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    tokens, scores = choose_tokens(logits, None, places=places).read()
    assert tokens == places
    expected = [float(logits[p].log_softmax(-1)[p]) for p in places]
    assert scores == pytest.approx(expected, abs=1e-6)
    allowed = [np.array([place, 3 - place]) for place in places]
    tokens, scores = choose_tokens(logits, allowed, places=places).read()
    assert tokens == places
    expected = [float(logits[p, [p, 3 - p]].log_softmax(-1)[0]) for p in places]
    assert scores == pytest.approx(expected, abs=1e-6)


def test_noise_decides_and_the_score_is_without_it():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]])
    allowed = [np.array([2, 0]), np.array([], dtype=int)]
    noise = [np.array([0.0, 5.0], dtype=np.float32), np.array([], dtype=np.float32)]
    tokens, scores = choose_tokens(logits, allowed, noise=noise).read()
    assert tokens == [0, -1]
    assert scores == [pytest.approx(-math.log(1 + math.exp(2.0))), 0.0]


def test_choice_waits_for_the_gpu_of_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    current = ["cuda:0"]
    recorded = []

    @contextmanager
    def on_device_of(tensor: SimpleNamespace) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    class Event:
        def __init__(self) -> None:
            self.device = current[-1]

        def record(self) -> None:
            recorded.append((self.device, current[-1]))

    monkeypatch.setattr(choice, "on_device_of", on_device_of)
    monkeypatch.setattr(choice, "_copy_to_host", lambda tensor: tensor)
    monkeypatch.setattr("torch.cuda.Event", Event)
    choice.Choice(*[SimpleNamespace(is_cuda=True, device="cuda:1")] * 2)
    assert recorded == [("cuda:1", "cuda:1")]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_choice_on_a_gpu_that_is_not_the_current_one_is_waited_for() -> None:
    assert torch.cuda.current_device() == 0
    busy = torch.randn(8192, 8192, device="cuda:1")
    for number in range(20):
        for _ in range(10):
            busy = busy @ busy / 8192  # keeps the second one at work
        logits = torch.zeros(64, 1000, device="cuda:1")
        logits[:, number] = 1.0 + 0 * busy[0, 0].nan_to_num(0.0, 0.0, 0.0)
        assert choose_tokens(logits, None).read()[0] == [number] * 64
