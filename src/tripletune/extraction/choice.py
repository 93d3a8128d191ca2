"""The likeliest allowed token of each row, and how likely it is among the allowed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tripletune.extraction.states import TokenArray

__all__ = ["Choice", "choose_tokens"]

_CACHED_NUMBERS = 2**19


class Choice:
    """The chosen tokens: on the device at once, on the host when they have been computed.

    Args:
        tokens: (B,) ids; -1 for a row that may write nothing.
        scores: (B,) fp32 log-probabilities among the allowed tokens; 0 where there are none.

    Attributes:
        tokens: As given.
    """

    def __init__(self, tokens: Tensor, scores: Tensor) -> None:
        self.tokens = tokens
        self._event: torch.cuda.Event | None = None
        self._host = (tokens, scores)
        if tokens.is_cuda:
            # Copied now: a copy that is asked for later waits for all that was started meanwhile.
            self._host = (_copy_to_host(tokens), _copy_to_host(scores))
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> tuple[list[int], list[float]]:
        """Tokens and scores, waiting until they are computed."""
        if self._event is not None:
            self._event.synchronize()
        tokens, scores = self._host
        return tokens.tolist(), scores.tolist()


def choose_tokens(logits: Tensor, allowed: Sequence[TokenArray] | None) -> Choice:
    """The choice of each row.

    Only the logits of allowed tokens are looked at, so that the work is that of the few tokens a
    guide allows, not of the vocabulary.

    Args:
        logits: (B, V).
        allowed: Ids for each row, possibly none. None: every token.
    """
    if allowed is None:
        tokens = logits.argmax(dim=-1)
        top = logits.gather(1, tokens[:, None])[:, 0]
        return Choice(tokens, top.float() - _logsumexp(logits))
    lengths = np.array([len(ids) for ids in allowed])
    widest = int(lengths.max())
    if widest == 0:
        nothing = torch.zeros(len(allowed), device=logits.device)
        return Choice(nothing.long() - 1, nothing)
    rows = np.repeat(np.arange(len(allowed)), lengths)
    columns = np.arange(len(rows)) - np.repeat(lengths.cumsum() - lengths, lengths)
    packed = torch.from_numpy(np.stack([rows, columns, np.concatenate(allowed)]))
    if logits.is_cuda:
        packed = packed.pin_memory().to(logits.device, non_blocking=True)
    row, column, token = packed  # (T,) each, T allowed tokens altogether
    values = torch.full((len(allowed), widest), -torch.inf, device=logits.device)  # (B, A)
    values[row, column] = logits[row, token].float()
    ids = torch.full((len(allowed), widest), -1, device=logits.device)
    ids[row, column] = token
    top, places = values.max(dim=-1)
    scores = (top - values.logsumexp(dim=-1)).nan_to_num(0.0)
    return Choice(ids.gather(1, places[:, None])[:, 0], scores)


def _logsumexp(logits: Tensor) -> Tensor:
    """(B,) fp32. On the CPU a few rows at a time, whose copies stay in its cache."""
    num_rows = len(logits) if logits.is_cuda else max(1, _CACHED_NUMBERS // logits.shape[1])
    starts = range(0, len(logits), num_rows)
    sums = [logits[start : start + num_rows].float().logsumexp(dim=-1) for start in starts]
    return torch.cat(sums)


def _copy_to_host(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
