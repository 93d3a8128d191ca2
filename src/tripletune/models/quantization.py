"""NF4 of weights that cannot be quantised in the ordinary way while loading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["quantize_linear_layers", "quantized_on"]


def quantize_linear_layers(
    model: Any, *, dtype: torch.dtype, quant_storage: torch.dtype = torch.uint8
) -> int:
    """Replaces every linear layer but the head by its NF4 form; returns how many.

    Quantisation is bitsandbytes' NF4 with double quantisation, as while loading (QLoRA,
    arXiv 2305.14314, section 3).

    Args:
        model: A causal model on its device.
        dtype: Compute dtype of the new layers.
        quant_storage: The dtype that packed weights lie in.
    """
    import bitsandbytes as bnb

    head = model.get_output_embeddings()
    changed = 0
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or module is head:
            continue
        layer = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
            quant_storage=quant_storage,
            device="meta",
        )
        layer.weight = bnb.nn.Params4bit(
            module.weight.data,
            requires_grad=False,
            quant_type="nf4",
            quant_storage=quant_storage,
            compress_statistics=True,
        ).to(module.weight.device)
        if module.bias is not None:
            layer.bias = nn.Parameter(module.bias.data, requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
        changed += 1
    return changed


@contextmanager
def quantized_on(device: torch.device) -> Iterator[None]:
    """Weights that bitsandbytes quantises inside are quantised on `device`, wherever they lie.

    A model that is loaded to host memory is quantised there otherwise, which takes a processor
    minutes for 6B parameters and a GPU a second.
    """
    import bitsandbytes as bnb

    weight_class: Any = bnb.nn.Params4bit
    plain = weight_class._quantize

    def quantize(weight: Any, target: Any) -> Any:
        plain(weight, device)
        weight.data = weight.data.to(target)
        weight.quant_state.to(target)
        return weight

    weight_class._quantize = quantize
    try:
        yield
    finally:
        weight_class._quantize = plain
