"""One allowed token of each row, the likeliest or drawn, and how likely it was among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tripletune.extraction.sampling import Noise
from tripletune.extraction.states import TokenArray
from tripletune.models.current_device import on_device_of

__all__ = ["Choice", "choose_tokens", "copy_to_device"]

_CACHED_NUMBERS = 2**21


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
            # An event is of the current GPU, and would not wait for copies from another one.
            with on_device_of(tokens):
                self._host = (_copy_to_host(tokens), _copy_to_host(scores))
                self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._event.record()

    def read(self) -> tuple[list[int], list[float]]:
        """Tokens and scores, waiting until they are computed."""
        if self._event is not None:
            self._event.synchronize()
        tokens, scores = self._host
        return tokens.tolist(), scores.tolist()


def choose_tokens(
    logits: Tensor,
    allowed: Sequence[TokenArray] | None,
    *,
    places: Sequence[int] | None = None,
    noise: Sequence[Noise] | None = None,
) -> Choice:
    """The choice of each row.

    Only the logits of allowed tokens are looked at, so that the work is that of the few tokens a
    guide allows, not of the vocabulary.

    Args:
        logits: (P, V).
        allowed: Ids for each of the B rows, possibly none. None: every token.
        places: Which of the P each row is. None: B is P.
        noise: Added to the logits of each row's allowed ids before the highest is chosen; scores
            are without it. None: no noise.
    """
    places = range(len(logits)) if places is None else places
    if allowed is None:
        return _choose_freely(logits, places)
    lengths = np.array([len(ids) for ids in allowed])
    widest = int(lengths.max())
    if widest == 0:
        nothing = torch.zeros(len(allowed), device=logits.device)
        return Choice(nothing.long() - 1, nothing)
    rows = np.repeat(np.arange(len(allowed)), lengths)
    columns = np.arange(len(rows)) - np.repeat(lengths.cumsum() - lengths, lengths)
    sources = np.repeat(np.array(places), lengths)
    packed = torch.from_numpy(np.stack([sources, rows, columns, np.concatenate(allowed)]))
    # (T,) each, T allowed tokens altogether
    source, row, column, token = copy_to_device(packed, logits.device)
    values = torch.full((len(allowed), widest), -torch.inf, device=logits.device)  # (B, A)
    values[row, column] = logits[source, token].float()
    ids = torch.full((len(allowed), widest), -1, device=logits.device)
    ids[row, column] = token
    top, chosen = values.max(dim=-1)
    if noise is not None:
        added = copy_to_device(torch.from_numpy(np.concatenate(noise)), logits.device)  # (T,)
        chosen = values.index_put((row, column), added, accumulate=True).argmax(dim=-1)
        top = values.gather(1, chosen[:, None])[:, 0]
    scores = (top - values.logsumexp(dim=-1)).nan_to_num(0.0)
    return Choice(ids.gather(1, chosen[:, None])[:, 0], scores)


def _choose_freely(logits: Tensor, places: Sequence[int]) -> Choice:
    """On the CPU a few rows at a time, whose copies stay in its cache."""
    step = len(places) if logits.is_cuda else max(1, _CACHED_NUMBERS // logits.shape[1])
    tokens, scores = [], []
    for start in range(0, len(places), step):
        some = places[start : start + step]
        first, end = some[0], some[0] + len(some)
        is_run = list(some) == list(range(first, end))
        index = None if is_run else copy_to_device(torch.tensor(some), logits.device)
        rows = logits[first:end] if index is None else logits[index]
        chosen = rows.argmax(dim=-1)
        top = rows.gather(1, chosen[:, None])[:, 0]
        tokens.append(chosen)
        scores.append(top.float() - rows.float().logsumexp(dim=-1))
    return Choice(torch.cat(tokens), torch.cat(scores))


def copy_to_device(host: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, copied without waiting for it."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def _copy_to_host(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
