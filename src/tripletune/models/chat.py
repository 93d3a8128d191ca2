"""`model.chat` and `model.stream_chat`, with the signatures of the official ChatGLM code.

The tokenizer renders the conversation (`build_chat_ids`) and cleans the answer (`decode_chat`);
this file only generates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.generation.logits_process import LogitsProcessorList

from tripletune.models.sdpa import without_cudnn_attention
from tripletune.models.streaming import iter_generated_ids

__all__ = ["ChatMixin"]

History = list[tuple[str, str]]


class ChatMixin:
    """Adds the official chat methods to a model that can generate."""

    def chat(
        self,
        tokenizer: Any,
        query: str,
        history: History | None = None,
        max_length: int = 2048,
        num_beams: int = 1,
        do_sample: bool = True,
        top_p: float = 0.7,
        temperature: float = 0.95,
        logits_processor: LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> tuple[str, History]:
        """The answer to `query`, and the history with this turn added.

        The defaults are the official ones and sample; for extraction pass `do_sample=False`.

        Args:
            tokenizer: The model's own tokenizer.
            query: What the user says.
            history: Earlier (query, answer) turns.
            max_length: Prompt and answer together, in tokens; not used with `max_new_tokens`.
            num_beams: As `generate`.
            do_sample: As `generate`.
            top_p: As `generate`; used when sampling.
            temperature: As `generate`; used when sampling.
            logits_processor: As `generate`.
            **kwargs: Passed to `generate`.
        """
        history = list(history or [])
        if do_sample:
            kwargs |= {"top_p": top_p, "temperature": temperature}
        if "max_new_tokens" not in kwargs:
            kwargs["max_length"] = max_length
        input_ids = self._encode_chat(tokenizer, query, history)
        with torch.inference_mode(), without_cudnn_attention():
            output_ids = self.generate(  # type: ignore[attr-defined]
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                num_beams=num_beams,
                do_sample=do_sample,
                logits_processor=logits_processor,
                **kwargs,
            )
        response = tokenizer.decode_chat(output_ids[0, input_ids.shape[1] :].tolist())
        return response, [*history, (query, response)]

    def stream_chat(
        self,
        tokenizer: Any,
        query: str,
        history: History | None = None,
        max_length: int = 2048,
        do_sample: bool = True,
        top_p: float = 0.7,
        temperature: float = 0.95,
        logits_processor: LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[str, History]]:
        """Yields the answer so far and the history with it, once for every token.

        Takes the arguments of `chat`, except `num_beams`. An error while generating is raised
        here, after the tokens before it.
        """
        history = list(history or [])
        if do_sample:
            kwargs |= {"top_p": top_p, "temperature": temperature}
        if "max_new_tokens" not in kwargs:
            kwargs["max_length"] = max_length
        input_ids = self._encode_chat(tokenizer, query, history)
        answer: list[int] = []
        for token in iter_generated_ids(
            self,
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            do_sample=do_sample,
            logits_processor=logits_processor,
            **kwargs,
        ):
            answer.append(token)
            response = tokenizer.decode_chat(answer)
            yield response, [*history, (query, response)]

    def _encode_chat(self, tokenizer: Any, query: str, history: History) -> torch.Tensor:
        device = self.device  # type: ignore[attr-defined]
        return torch.tensor([tokenizer.build_chat_ids(query, history)], device=device)
