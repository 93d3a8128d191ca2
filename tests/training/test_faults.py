from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.errors import OutputError, ResourceError
from tripletune.training.faults import (
    explain_fault,
    extract_within_memory,
    is_out_of_memory,
    num_examples_in,
    split_batch,
)

OUT = Path("output/run")
COLLATORS = [PaddedCollator(3, "two_rows"), PackedCollator(3, "two_rows", pad_to_multiple_of=8)]


def build_examples(lengths: list[int]) -> list[TokenizedExample]:
    return [
        TokenizedExample([100 * number + place for place in range(length)], 2)
        for number, length in enumerate(lengths, 1)
    ]


def labelled(batches: list[dict[str, Any]]) -> list[tuple[int, tuple[int, ...]]]:
    """Every label with the positions that its token has."""
    found = []
    for batch in batches:
        for row in range(len(batch["input_ids"])):
            for place in (batch["labels"][row] != -100).nonzero().flatten().tolist():
                positions = tuple(batch["position_ids"][row, :, place].tolist())
                found.append((int(batch["labels"][row, place]), positions))
    return found


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_out_of_memory_is_told_apart(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), r"memory: .*smaller --batch_size"),
        (RuntimeError("CUDA error: device-side assert"), r"GPU: .*nvidia-smi.*auto \(output/run\)"),
        (torch.AcceleratorError("an illegal access"), "GPU: it failed or disappeared"),
        (RuntimeError("NCCL error: unhandled"), "GPU: it failed or disappeared"),
    ],
)
def test_fault_is_explained_with_its_remedy(error, message):
    explained = explain_fault(error, OUT)
    assert isinstance(explained, ResourceError)
    with pytest.raises(ResourceError, match=message):
        raise explained


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_file_that_cannot_be_written_is_explained(number):
    explained = explain_fault(OSError(number, os.strerror(number)), OUT)
    assert isinstance(explained, OutputError)
    message = str(explained)
    assert message.startswith("output_dir: 'output/run' cannot be written")
    assert os.strerror(number) in message
    assert "make room" in message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        ValueError("CUDA error"),
        ConnectionResetError("of a tracker"),
        FileNotFoundError(errno.ENOENT, "gone"),
        ResourceError("memory: one example does not fit (CUDA out of memory.)"),
    ],
)
def test_other_errors_are_left_as_they_are(error):
    assert explain_fault(error, OUT) is None


class Deadly(Dataset[int]):
    """Kills the process that reads an item."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_data_worker_that_dies_is_explained():
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Deadly(), num_workers=1, multiprocessing_context="spawn"))
    explained = explain_fault(caught.value, OUT)
    assert isinstance(explained, ResourceError)
    assert "a process that prepares batches died" in str(explained)
    assert "--resume_from_checkpoint auto" in str(explained)


def test_data_worker_that_dies_while_it_passes_a_batch_is_explained():
    # As raised inside torch's loader: the pipe to the worker broke.
    loader: dict[str, Any] = {"__name__": "torch.utils.data.dataloader"}
    exec("def get(error):\n    raise error", loader)
    with pytest.raises(ConnectionResetError) as caught:
        loader["get"](ConnectionResetError(104, "Connection reset by peer"))
    assert "a process that prepares batches died" in str(explain_fault(caught.value, OUT))


@pytest.mark.parametrize("collate", COLLATORS)
def test_examples_are_counted(collate):
    # A packed row's padding is a document of its own.
    padding = isinstance(collate, PackedCollator)
    assert num_examples_in(collate(build_examples([4, 5, 6]))) == 3 + padding


@given(st.lists(st.integers(3, 9), min_size=1, max_size=9), st.integers(1, 5))
def test_pieces_hold_every_label_once_in_order(lengths, num_pieces):
    for collate in COLLATORS:
        batch = collate(build_examples(lengths))
        pieces = split_batch(batch, num_pieces)
        assert len(pieces) <= num_pieces
        assert labelled(pieces) == labelled([batch])
        assert len(pieces) == min(num_pieces, num_examples_in(batch))


@dataclass
class Options:
    batch_size: int


@dataclass
class Limited:
    """An extractor that fits no more than three texts at once."""

    options: Any = field(default_factory=lambda: Options(16))

    def extract(self, texts: list[str]) -> list[str]:
        if self.options.batch_size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [text.upper() for text in texts]


def test_extraction_halves_its_batch_until_it_fits(caplog):
    extractor = Limited()
    assert extract_within_memory(extractor, ["a", "b"]) == ["A", "B"]
    assert extractor.options == Options(2)
    assert len(caplog.messages) == 3


def test_extraction_that_fits_no_single_text_says_so():
    extractor = SimpleNamespace(options=Options(1), extract=Limited(Options(9)).extract)
    with pytest.raises(torch.OutOfMemoryError):
        extract_within_memory(extractor, ["a"])


def test_pieces_count_their_own_labels():
    labels = torch.tensor([[-100, 5, 6], [-100, -100, 7]])
    batch = {"input_ids": labels.clone(), "labels": labels, "attention_mask": labels.clone()}
    pieces = split_batch({**batch, "num_labels": 3}, 2)
    assert [piece["num_labels"] for piece in pieces] == [2, 1]
