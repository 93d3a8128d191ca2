"""What the Trainer does to every module at every step, left out where it changes nothing.

A network with adapters has a few thousand modules and frozen parameters. To visit them all for each
step's `train()` and `zero_grad()` takes longer than the GPU needs for a small network's step.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

from torch import Tensor

__all__ = ["leave_out_visits"]


def leave_out_visits(model: Any, trainable: Sequence[Tensor]) -> None:
    """Makes `model.train()` and `model.zero_grad()` quick.

    `train` does nothing when the model itself is in that mode already: a part may be switched by
    itself only until the whole model is switched. `zero_grad` goes over the trainable parameters.

    Args:
        model: A module; both become attributes of this one alone.
        trainable: Its parameters that get gradients.
    """
    # Bound methods, so that a copy of the model gets its own.
    model._parameters_with_gradients = list(trainable)
    model.train = MethodType(_train, model)
    model.zero_grad = MethodType(_zero_grad, model)


def _train(model: Any, mode: bool = True) -> Any:
    return model if model.training is mode else type(model).train(model, mode)


def _zero_grad(model: Any, set_to_none: bool = True) -> None:
    for parameter in model._parameters_with_gradients:
        if set_to_none:
            parameter.grad = None
        elif parameter.grad is not None:
            parameter.grad.zero_()
