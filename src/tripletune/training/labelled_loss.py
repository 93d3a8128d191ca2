"""The loss of any causal model with its head on labelled tokens alone.

Models of `transformers` make the logits of every token, in fp32, before they look at the labels:
for a vocabulary of 262,144 that is more work and memory than the whole network of a small model.
This package's own networks do without; the others are given the same way here, where a comparison
shows that it is the same.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from tripletune.models.loss import compute_causal_loss, find_labelled

__all__ = ["use_labelled_loss"]

logger = logging.getLogger("tripletune")

_TOLERANCE = {torch.float32: 1e-4}
_HALF_TOLERANCE = 2e-2


def use_labelled_loss(base: Any) -> bool:
    """Replaces how a causal model computes its loss; says so by name where it cannot.

    The loss of a short row is computed both ways first. Scaled or capped logits, or anything else
    between the decoder and the loss, show there, and the model keeps its own way.

    Args:
        base: A causal model with `get_decoder` and `get_output_embeddings`.

    Returns:
        Whether the loss was replaced.
    """
    plain = base.forward

    @functools.wraps(plain)
    def forward(
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        num_labels: int | None = None,
        **kwargs: Any,
    ) -> Any:
        if labels is None:
            return plain(input_ids=input_ids, **kwargs)
        kwargs.setdefault("use_cache", False)
        labelled = find_labelled(labels, num_labels)
        hidden = base.get_decoder()(input_ids=input_ids, **kwargs).last_hidden_state
        loss = compute_causal_loss(
            hidden, base.get_output_embeddings(), labelled, num_items_in_batch=num_items_in_batch
        )
        return CausalLMOutputWithPast(loss=loss)

    if not _agree(base, plain, forward):
        return False
    base.forward = forward
    base.takes_label_count = True
    return True


@torch.no_grad()
def _agree(base: Any, plain: Any, labelled: Any) -> bool:
    """Whether both ways give the same loss of sixteen tokens."""
    embeddings = base.get_input_embeddings().weight
    count = embeddings.shape[0]
    ids = torch.linspace(0, count - 1, 16, device=embeddings.device).long().unsqueeze(0)
    training = base.training
    base.eval()
    try:
        theirs = plain(input_ids=ids, labels=ids, use_cache=False).loss
        ours = labelled(input_ids=ids, labels=ids, use_cache=False).loss
    except (AttributeError, TypeError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        tolerance = _TOLERANCE.get(embeddings.dtype, _HALF_TOLERANCE)
        if abs(float(ours) - float(theirs)) <= tolerance * abs(float(theirs)):
            return True
        reason = f"{float(ours):.4f} 与 {float(theirs):.4f} 不同"
    finally:
        base.train(training)
    logger.warning("%s 保留自己的损失计算 (完整词表): %s", type(base).__name__, reason)
    return False
