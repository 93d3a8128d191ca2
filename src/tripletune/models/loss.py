"""Cross entropy of a large vocabulary without ever holding all its logits.

Only positions with a label reach the head, a chunk at a time, and the gradient of a chunk is
computed with its loss: the 130,528 logits of a position live for one chunk only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripletune.models.cross_entropy import has_cross_entropy_kernel, replace_by_gradient

__all__ = ["LabelledTokens", "compute_causal_loss", "find_labelled", "take_tokens"]

IGNORED_LABEL = -100
_CHUNK_TOKENS = 1024


class LabelledTokens(NamedTuple):
    """The tokens that are learnt from.

    Attributes:
        places: (N,) where, among all B x S tokens, of those whose next token has a label.
        targets: (N,) that next token; -100 for places beyond the number of labels.
    """

    places: Tensor
    targets: Tensor


def find_labelled(labels: Tensor, count: int | None = None) -> LabelledTokens:
    """Where the labels are; without a count it waits for the device to count them.

    Args:
        labels: (B, S) token ids, -100 where nothing is to be learnt. Shifted here: the token at t
            predicts the label at t + 1.
        count: How many there are, the first token of each row not counted; with more, the places
            beyond add nothing to the loss.
    """
    targets = F.pad(labels, (0, 1), value=IGNORED_LABEL)[:, 1:].flatten()
    ignored = targets == IGNORED_LABEL
    if count is None:
        (places,) = (~ignored).nonzero(as_tuple=True)
    else:
        places = ignored.byte().argsort(stable=True)[:count]
    return LabelledTokens(places, targets[places])


def take_tokens(states: Tensor, index: Tensor | None) -> Tensor:
    """(B, S, E) to (1, N, E): the tokens at `index` among all B x S; without one, all as they are.

    The tokens must differ, so that the backward pass can copy instead of adding up.
    """
    if index is None:
        return states
    taken: Tensor = _TakeTokens.apply(states, index)  # type: ignore[no-untyped-call]
    return taken


class _TakeTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = states.shape
        return states.flatten(0, 1).index_select(0, index).unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = grad_outputs
        (index,) = ctx.saved_tensors
        rows, length, width = ctx.shape
        spread = gradient.new_zeros(rows * length, width).index_copy(0, index, gradient[0])
        return spread.view(rows, length, width), None


def compute_causal_loss(
    hidden_states: Tensor,
    head: nn.Module,
    labels: Tensor | LabelledTokens,
    *,
    num_items_in_batch: int | Tensor | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> Tensor:
    """Mean cross entropy of each labelled token given the tokens before it.

    Args:
        hidden_states: (B, S, E), after the final norm; or, with `LabelledTokens`, (1, N, E) of
            just those.
        head: The language-model head, E to V. A plain `nn.Linear` takes the fused path; any other
            module (quantised, adapted) is called and differentiated as it is.
        labels: (B, S) as `find_labelled` takes them, or what it gave.
        num_items_in_batch: Divide the summed loss by this instead of the labels counted here
            (gradient accumulation over a step needs the count of the whole step).
        chunk_tokens: Positions sent through the head at a time.

    Returns:
        Scalar, fp32. Zero, with zero gradients, when no position has a label.
    """
    labelled = labels if isinstance(labels, LabelledTokens) else find_labelled(labels)
    targets = labelled.targets.to(hidden_states.device)
    if hidden_states.shape[:2] != (1, targets.numel()):
        hidden_states = take_tokens(hidden_states, labelled.places)
    hidden = hidden_states[0]  # (N, E)
    if type(head) is nn.Linear and head.bias is None:
        total = _FusedCrossEntropy.apply(hidden, head.weight, targets, chunk_tokens)
    else:
        total = _plain_cross_entropy(hidden, head, targets, chunk_tokens)
    count = num_items_in_batch
    if count is None:
        count = (targets != IGNORED_LABEL).sum()
    if isinstance(count, Tensor):
        return total / count.to(total.device).clamp(min=1)
    return total / max(count, 1)


class _FusedCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T`; the gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        matrix = weight.to(hidden.dtype)
        is_written_out = not has_cross_entropy_kernel(hidden.device)
        if is_written_out and not need_hidden and not need_weight:
            # In fp32, and so in smaller chunks.
            size = max(1, chunk // 4)
            return _plain_cross_entropy(hidden, lambda rows: rows @ matrix.T, targets, size)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if need_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            logits = hidden[rows] @ matrix.T  # (chunk, V)
            loss, gradient = _find_loss_and_gradient(logits, targets[rows])
            total += loss
            if hidden_grad is not None:
                hidden_grad[rows] = gradient @ matrix
            if weight_grad is not None:
                weight_grad += (gradient.T @ hidden[rows]).float()
            del logits, gradient  # beside the next chunk's they would be half a gigabyte more
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad_output,) = grad_outputs
        hidden_grad, weight_grad = ctx.saved_tensors
        if hidden_grad is not None:
            hidden_grad = hidden_grad * grad_output.to(hidden_grad.dtype)
        if weight_grad is not None:
            weight_grad = (weight_grad * grad_output).to(ctx.weight_dtype)
        return hidden_grad, weight_grad, None, None


def _find_loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross entropy (fp32) of (N, V) logits, and its gradient in their dtype.

    On CUDA the gradient is written over the logits.
    """
    if has_cross_entropy_kernel(logits.device):
        return replace_by_gradient(logits, targets, ignored=IGNORED_LABEL).sum(), logits
    scores = logits.float()
    log_total = scores.logsumexp(dim=-1, keepdim=True)  # (N, 1)
    is_learnt = (targets != IGNORED_LABEL)[:, None]  # (N, 1)
    loss = ((log_total - scores.gather(1, targets.clamp(min=0)[:, None])) * is_learnt).sum()
    is_target = torch.arange(scores.shape[1], device=scores.device) == targets[:, None]
    gradient = ((scores - log_total).exp() - is_target.float()) * is_learnt
    return loss, gradient.to(logits.dtype)


def _plain_cross_entropy(
    hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor, chunk: int
) -> Tensor:
    total = hidden.sum().float() * 0.0
    for start in range(0, hidden.shape[0], chunk):
        logits = head(hidden[start : start + chunk]).float()
        total = total + F.cross_entropy(logits, targets[start : start + chunk], reduction="sum")
    return total
