"""Token ids as a model generates them, one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from tripletune.models.sdpa import without_cudnn_attention

__all__ = ["iter_generated_ids"]


def iter_generated_ids(model: Any, input_ids: torch.Tensor, **settings: Any) -> Iterator[int]:
    """Yields each new token id of one sequence while `model.generate` runs in a thread.

    A consumer that stops early stops the generation; what is raised while generating is raised
    here, after the tokens before it.

    Args:
        model: Anything with `generate`.
        input_ids: (1, S) the prompt.
        **settings: Passed to `generate`.
    """
    arrived: queue.Queue[int | BaseException | None] = queue.Queue()
    abandoned = threading.Event()
    criteria = StoppingCriteriaList(settings.pop("stopping_criteria", None) or [])
    criteria.append(_StopWhenAbandoned(abandoned))

    def generate() -> None:
        try:
            with torch.inference_mode(), without_cudnn_attention():
                model.generate(
                    input_ids,
                    streamer=_TokenQueue(arrived),
                    stopping_criteria=criteria,
                    **settings,
                )
        except BaseException as error:
            arrived.put(error)
        else:
            arrived.put(None)

    thread = threading.Thread(target=generate, name="generate", daemon=True)
    thread.start()
    try:
        while (token := arrived.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            yield token
    finally:
        abandoned.set()
        thread.join()


class _TokenQueue(BaseStreamer):
    """Puts new tokens into a queue; what is put first is the prompt."""

    def __init__(self, arrived: queue.Queue[int | BaseException | None]) -> None:
        self._arrived = arrived
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            for token in value.reshape(-1).tolist():
                self._arrived.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing: the thread itself says when it is done, so that errors come last."""


class _StopWhenAbandoned(StoppingCriteria):
    def __init__(self, abandoned: threading.Event) -> None:
        self._abandoned = abandoned

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.BoolTensor:
        done = self._abandoned.is_set()
        return torch.full((input_ids.shape[0],), done, device=input_ids.device)  # type: ignore[return-value]
