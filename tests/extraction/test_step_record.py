from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import tripletune.extraction.step_record as area
from tripletune.extraction.step_record import can_record, record_step

GIB = 2**30


class FakeGraph:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def capture_begin(self, **options: Any) -> None:
        self.calls.append("begin")

    def capture_end(self) -> None:
        self.calls.append("end")

    def replay(self) -> None:
        self.calls.append("replay")


class FakeCard:
    """A GPU that records nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int) -> None:
        self.graphs: list[FakeGraph] = []
        self.streams: list[Any] = []
        self.num_emptied = 0
        area._find_stream.cache_clear()
        monkeypatch.setattr(area, "find_uncached_bytes", lambda device: room)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.make_graph)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
        monkeypatch.setattr(torch.cuda, "stream", self.enter)
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty)

    def make_graph(self) -> FakeGraph:
        self.graphs.append(FakeGraph())
        return self.graphs[-1]

    def enter(self, stream: Any) -> Any:
        self.streams.append(stream)
        return nullcontext()

    def empty(self) -> None:
        self.num_emptied += 1


@pytest.fixture(autouse=True)
def _forget_streams():
    yield
    area._find_stream.cache_clear()


DEVICE = torch.device("cuda:0")


def test_only_steps_of_a_gpu_can_be_recorded() -> None:
    assert can_record(DEVICE)
    assert not can_record(torch.device("cpu"))


def test_step_is_recorded_once_and_its_result_is_that_of_the_replay(monkeypatch) -> None:
    card = FakeCard(monkeypatch, room=2 * GIB)
    output = torch.zeros(1)
    record = record_step(lambda: output, DEVICE, None)
    assert record.replay() is output
    assert [graph.calls for graph in card.graphs] == [["begin", "end", "replay"]]


def test_step_that_fails_ends_its_record(monkeypatch) -> None:
    card = FakeCard(monkeypatch, room=2 * GIB)

    def fail() -> torch.Tensor:
        raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        record_step(fail, DEVICE, None)
    assert card.graphs[0].calls == ["begin", "end"]
    assert record_step(lambda: torch.zeros(1), DEVICE, None), "the lock is still held"


def test_all_records_of_a_gpu_are_made_on_one_stream(monkeypatch) -> None:
    card = FakeCard(monkeypatch, room=2 * GIB)
    for device in (DEVICE, torch.device("cuda:1"), DEVICE):
        record_step(lambda: torch.zeros(1), device, None)
    assert card.streams == ["stream of cuda:0", "stream of cuda:1", "stream of cuda:0"]
    assert card.streams[0] is card.streams[2]


@pytest.mark.parametrize(("room", "expected"), [(GIB - 1, 1), (GIB, 0)])
def test_cache_is_emptied_only_where_a_record_might_find_no_room(
    monkeypatch, room: int, expected: int
) -> None:
    card = FakeCard(monkeypatch, room=room)
    record_step(lambda: torch.zeros(1), DEVICE, None)
    assert card.num_emptied == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_records_leave_no_memory_behind() -> None:
    weight = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
    source = torch.randn(64, 1024, device="cuda", dtype=torch.bfloat16)
    source @ weight  # the workspace of ordinary work is there before

    def record() -> int:
        made = record_step(lambda: source @ weight, source.device, torch.cuda.graph_pool_handle())
        torch.testing.assert_close(made.replay(), source @ weight)
        del made
        gc.collect()
        return torch.cuda.memory_allocated()

    first = record()
    assert [record() for _ in range(8)] == [first] * 8
