"""Frozen weights divided among the processes of a run (FSDP), for models that no card holds whole.

QLoRA learns a thousandth of the weights. The others, packed as NF4 or not, are cut into as many
shares as there are processes; a block is gathered when it computes, forward and backward, and let
go of after (PyTorch's FSDP2, `fully_shard`). The adapter, its gradients and its optimizer are small
and whole in every process, as in data parallel training: checkpoints and adapters are the same
files with and without FSDP, and any number of processes continues them. PEFT's
`fsdp_auto_wrap_policy` is for the flat parameters of FSDP1, and is not needed.

To be cut, NF4 has to lie in a float dtype, `bnb_4bit_quant_storage`. It is fp32 and not, as usual,
the compute dtype: on a GPU FSDP2 copies bf16 in a way that makes all NaN the same, and of packed
weights seen as bf16 one in a thousand is a NaN. Once, gathered bits are compared with those before.
The scales of NF4 (a thirtieth of the weights), the last norm and the head stay whole.

Source: https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1945,
https://github.com/pytorch/pytorch/issues/159333.

A forward pass is a conversation of all processes. Where they need different numbers of passes, in
evaluation, `lockstep` has those that are done gather along with the others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from tripletune.errors import ConfigError, ModelError
from tripletune.training.ranks import join_ranks

__all__ = [
    "PACKED_DTYPE",
    "count_bytes",
    "join_processes",
    "load_sharded",
    "lockstep",
    "shard_frozen_weights",
    "wrap_for_gradients",
]

logger = logging.getLogger("tripletune")

PACKED_DTYPE = torch.float32
"""What packed weights have to lie in."""
_LOADING = timedelta(hours=6)
"""How long one process waits while others load."""


def join_processes(*, compute: str) -> None:
    """Connects the processes that `torchrun` started.

    Raises:
        ConfigError: `torchrun` did not start this process, or 8-bit products are asked for.
    """
    if "RANK" not in os.environ:
        raise ConfigError(
            "fsdp: True, and torchrun did not start this process, so there is none to share the "
            "weights with; start several (torchrun --nproc_per_node=2 train_with_config.py --fsdp "
            "…), or leave out --fsdp"
        )
    if compute == "fp8":
        raise ConfigError("compute: 'fp8' needs whole weights; leave it out, or leave out --fsdp")
    join_ranks()


def load_sharded(load: Callable[[], Any], device: torch.device) -> Any:
    """The PEFT model that `load` gives, its frozen weights cut.

    The processes of a machine load one after the other, so that its memory holds one whole model.

    Args:
        load: Gives the model in host memory.
        device: This process's own.

    Raises:
        ModelError: weights are not what they were when they are gathered.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    waiting: Any = dist.new_group(backend="gloo", timeout=_LOADING)
    model: Any = None
    for turn in range(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))):
        if turn == int(os.environ.get("LOCAL_RANK", "0")):
            model = load()
            shard_frozen_weights(model, mesh, device)
        dist.barrier(waiting)
    for unit in _find_units(model):
        # Memory that is first taken inside an evaluation could not be trained with.
        unit.unshard()
        _check_gathered(unit)
        unit.reshard()
    held, gathered = (size / 2**30 for size in count_bytes(model))
    logger.info("FSDP: 每个进程保存 %.2f GiB 权重，一次最多收集 %.2f GiB", held, gathered)
    return model


def shard_frozen_weights(model: Any, mesh: Any, device: torch.device) -> None:
    """Keeps this process's share of a PEFT model's frozen weights, in place; nothing is sent.

    Args:
        model: Whole, on any device; NF4 layers in `PACKED_DTYPE`.
        mesh: The processes, in one dimension.
        device: Where the share, and all that is not cut, is moved.

    Raises:
        ConfigError: NF4 weights do not lie in `PACKED_DTYPE`.
    """
    from torch.distributed.fsdp import fully_shard
    from transformers.modeling_layers import GradientCheckpointingLayer

    _lay_packed_weights_open(model, device)
    base = model.get_base_model()
    units = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        units = [embeddings, *units]
    adapter = {p for p in model.parameters() if p.requires_grad}
    for unit in units:
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=adapter)
    for tensor in [*model.parameters(), *model.buffers()]:
        if not _is_cut(tensor):
            tensor.data = tensor.data.to(device)
    base.hf_device_map = {"": device}


def _lay_packed_weights_open(model: Any, device: torch.device) -> None:
    """Makes packed weights plain parameters, and has their layers keep the scales."""
    import bitsandbytes as bnb

    for name, layer in model.named_modules():
        if not isinstance(layer, bnb.nn.Linear4bit):
            continue
        packed, state = layer.weight, layer.weight.quant_state
        if packed.dtype != PACKED_DTYPE:
            raise ConfigError(
                f"bnb_4bit_quant_storage: {name} lies in {packed.dtype}; only {PACKED_DTYPE} is "
                "gathered with every bit as it was"
            )
        state.to(device)
        layer.quant_state = state
        layer.weight = nn.Parameter(packed.data.as_subclass(Tensor), requires_grad=False)
        layer.sum_of_bits = _sum_bits(layer.weight)


def _sum_bits(packed: Tensor) -> int:
    return int(packed.detach().view(torch.int32).sum(dtype=torch.int64))


def _check_gathered(unit: nn.Module) -> None:
    for name, layer in unit.named_modules():
        expected = getattr(layer, "sum_of_bits", None)
        if expected is not None and _sum_bits(layer.weight) != expected:
            raise ModelError(
                f"fsdp: the packed weight of {name} has changed on being gathered; torch "
                f"{torch.__version__} cannot divide 4-bit weights on this device: leave out --fsdp"
            )


def _is_cut(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _find_units(model: nn.Module) -> list[Any]:
    """The modules that are gathered one at a time, in the order of a forward pass."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def count_bytes(model: nn.Module) -> tuple[int, int]:
    """Bytes of parameters that lie in this process, and of the largest unit when it is gathered."""
    held = 0
    for parameter in model.parameters():
        local: Any = parameter
        held += local.to_local().nbytes if _is_cut(parameter) else parameter.nbytes
    units = _find_units(model)
    gathered = (sum(p.nbytes for p in unit.parameters() if _is_cut(p)) for unit in units)
    return held, max(gathered, default=0)


def wrap_for_gradients(model: Any, device: torch.device) -> nn.Module:
    """The model in a module that adds up the adapter's gradients over all processes."""
    from torch.nn.parallel import DistributedDataParallel

    cut = [name for name, parameter in model.named_parameters() if _is_cut(parameter)]
    buffers = [name for name, _ in model.named_buffers()]
    ddp: Any = DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, [*cut, *buffers])
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


@contextmanager
def lockstep(model: nn.Module) -> Iterator[None]:
    """Forward passes inside without gradients, in every process as many as it needs.

    All processes have to enter, and none may wait for the others inside in any other way. Nothing
    happens for a model that is not cut.
    """
    units = _find_units(model)
    if not units:
        yield
        return
    device = next(model.parameters()).device

    def is_anyone_computing(here: bool) -> bool:
        count = torch.tensor(int(here), device=device)
        torch.distributed.all_reduce(count)
        return bool(count)

    def announce(*_: Any) -> None:
        is_anyone_computing(True)

    hook = model.register_forward_pre_hook(announce)
    try:
        yield
    finally:
        hook.remove()
    while is_anyone_computing(False):
        for unit in units:
            unit.unshard()
            unit.reshard()
