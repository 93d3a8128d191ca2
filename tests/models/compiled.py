"""What the tests of compiled networks share."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import Tensor


def find_compiler() -> str | None:
    """A C++ compiler, which `torch.compile` needs on a CPU."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)


def logits_and_gradients(
    model: Any, call: Any, input_ids: Tensor, position_ids: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of `call`, which is `model` or compiled from it, and all gradients of a loss."""
    model.zero_grad()
    logits = call(input_ids, position_ids=position_ids, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], input_ids[0, 1:]).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}
