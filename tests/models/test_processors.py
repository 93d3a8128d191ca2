from __future__ import annotations

import pytest
import torch

from tripletune.models import processors
from tripletune.models.processors import use_own_processors


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("num_processes", "expected"), [(None, 12), ("1", 12), ("4", 3), ("24", 1)]
)
def test_processes_of_a_machine_share_its_processors(num_processes, expected, monkeypatch):
    monkeypatch.setattr(processors, "count_processors", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if num_processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", num_processes)
    with use_own_processors():
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("one_thread")
def test_threads_are_as_before_after_an_error(monkeypatch):
    monkeypatch.setattr(processors, "count_processors", lambda: 2)
    with pytest.raises(ValueError, match="broken"), use_own_processors():
        raise ValueError("broken")
    assert torch.get_num_threads() == 1


def test_there_is_at_least_one_processor():
    assert processors.count_processors() >= 1
