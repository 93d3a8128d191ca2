"""What goes wrong on the machine while training, told apart and said with its remedy."""

from __future__ import annotations

import errno
import itertools
import logging
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tripletune.errors import OutputError, ResourceError, TripletuneError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "explain_fault",
    "extract_within_memory",
    "is_out_of_memory",
    "num_examples_in",
    "split_batch",
]

logger = logging.getLogger("tripletune")

_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM),
)
_RESUME = "then continue with --resume_from_checkpoint auto"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the GPU or on the CPU."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "CUDA out of memory" in text
    )


def explain_fault(error: BaseException, output_dir: Path) -> TripletuneError | None:
    """The error to show instead of what torch raised; None when it is of no known kind."""
    text = str(error).strip().split("\n")[0]
    if isinstance(error, TripletuneError):
        return None
    if is_out_of_memory(error):
        return ResourceError(
            f"memory: {text}; use a smaller --batch_size (accumulation keeps the effective batch), "
            f"a shorter --max_source_length or --config small, {_RESUME}"
        )
    if "DataLoader worker" in text or _lost_a_data_worker(error):
        return ResourceError(
            f"data worker: a process that prepares batches died ({text}); the system may have "
            f"killed it for want of memory: free some, {_RESUME} ({output_dir})"
        )
    if _cannot_write(error):
        return OutputError(
            f"output_dir: {str(output_dir)!r} cannot be written ({text}); make room or mend the "
            f"folder's permissions, {_RESUME}"
        )
    if not isinstance(error, RuntimeError):
        return None
    # torch.AcceleratorError exists from 2.9 on; older messages say the same.
    lost = type(error).__name__ == "AcceleratorError" or "CUDA error" in text or "NCCL" in text
    if lost:
        return ResourceError(
            f"GPU: it failed or disappeared ({text}); check it with nvidia-smi, {_RESUME} "
            f"({output_dir})"
        )
    return None


def _cannot_write(error: BaseException) -> bool:
    """Whether the disk is full, or a file or folder may not be written."""
    if isinstance(error, OSError):
        return error.errno in _UNWRITABLE
    # safetensors raises its own class, derived from Exception alone.
    return type(error).__module__.startswith("safetensors") and "os error" in str(error)


def _lost_a_data_worker(error: BaseException) -> bool:
    """Whether a pipe broke in the data loader, as when a worker dies while it passes a batch."""
    if not isinstance(error, (ConnectionError, EOFError)):
        return False
    frames = traceback.walk_tb(error.__traceback__)
    return any(f.f_globals.get("__name__") == "torch.utils.data.dataloader" for f, _ in frames)


def extract_within_memory(extractor: Any, texts: Sequence[str]) -> list[Any]:
    """`extractor.extract(texts)`, with half the batch size as often as memory does not suffice.

    Args:
        extractor: An `Extractor`; its batch size stays at what was enough.
        texts: What to extract from.
    """
    while True:
        size = extractor.options.batch_size
        try:
            return list(extractor.extract(texts))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            reason = str(error).strip().split("\n")[0]
        _free_unused_memory()
        extractor.options = replace(extractor.options, batch_size=max(1, size // 2))
        logger.warning("评估时显存不足 (%s)：batch_size 由 %d 减半", reason, size)


def _free_unused_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def num_examples_in(inputs: dict[str, Any]) -> int:
    """How many examples a batch holds, its rows or, packed in one row, its documents."""
    return len(_document_starts(inputs)) if _is_packed(inputs) else len(inputs["input_ids"])


def split_batch(inputs: dict[str, Any], num_pieces: int) -> list[dict[str, Any]]:
    """A batch cut between examples into at most `num_pieces` batches of about the same size.

    Args:
        inputs: As the collators make them: rows (B, S), or one packed row (1, S) without
            `attention_mask`, whose documents begin where the positions do.
        num_pieces: At least 1.
    """
    from torch import Tensor

    from tripletune.data.collate import with_label_count

    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    if not _is_packed(inputs):
        rows = len(inputs["input_ids"])
        bounds = _bounds([*range(rows), rows], num_pieces)
        pieces = [{name: t[first:last] for name, t in tensors.items()} for first, last in bounds]
    else:
        length = inputs["input_ids"].shape[-1]
        bounds = _bounds([*_document_starts(inputs), length], num_pieces)
        pieces = [
            {name: t[..., first:last] for name, t in tensors.items()} for first, last in bounds
        ]
    return [with_label_count(piece) for piece in pieces] if "num_labels" in inputs else pieces


def _is_packed(inputs: dict[str, Any]) -> bool:
    return "attention_mask" not in inputs and "position_ids" in inputs


def _document_starts(inputs: dict[str, Any]) -> list[int]:
    positions: Tensor = inputs["position_ids"]
    first = positions[0] if positions.dim() == 2 else positions[0].sum(dim=0)
    starts: list[int] = (first == 0).nonzero().flatten().tolist()
    return starts


def _bounds(edges: list[int], num_pieces: int) -> list[tuple[int, int]]:
    """Consecutive (first, last) of at most `num_pieces` groups of the parts between edges."""
    num_parts = len(edges) - 1
    num_pieces = min(num_pieces, num_parts)
    cuts = [round(number * num_parts / num_pieces) for number in range(num_pieces + 1)]
    return [(edges[a], edges[b]) for a, b in itertools.pairwise(cuts)]
