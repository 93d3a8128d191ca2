"""The sizes of a network that its memory and time depend on, read off its modules, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tripletune.errors import ConfigError

__all__ = ["NetworkSize", "describe_network", "is_native", "read_network_size"]

_NF4_GROUP, _NF4_OUTER_GROUP = 64, 256
_HALF = 2


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """Sizes of a network with its adapter, in elements where nothing else is said.

    Attributes:
        weight_bytes: Everything but the adapter, as it lies on the GPU.
        frozen_parameters: In the blocks' linear layers: two operations a token each.
        trainable: Adapter parameters, fp32.
        layers: L, number of blocks.
        width: E, of the residual stream.
        query_width: Q, of all query heads together.
        key_width: K, of all key heads together; values are as wide.
        heads: Number of query heads.
        mlp_in: Output width of the MLP's first product, or first two.
        mlp_out: Input width of the MLP's last product; below `mlp_in` when gated.
        vocabulary: V, rows of the head.
        largest_weight: Of the largest linear layer in a block.
        norms: Norms in a block as wide as E, and whether they save their input in half precision
            (LayerNorm) or in fp32 (RMS norms).
        head_norms: Whether queries and keys are normalised, too.
        adapted_widths: Input width of each adapted layer of a block.
        adapted_mlp_inputs: Widths of the different inputs of adapted layers of its MLP.
        is_native: Whether it is one of this package's networks, whose last layer computes labelled
            tokens alone.
        rotates_apart: Whether queries and keys of prompts are rotated by operations of their own in
            fp32: positions have two rows (ChatGLM-6B), and this machine's GPU lacks the kernels.
    """

    weight_bytes: int
    frozen_parameters: int
    trainable: int
    layers: int
    width: int
    query_width: int
    key_width: int
    heads: int
    mlp_in: int
    mlp_out: int
    vocabulary: int
    largest_weight: int
    norms: tuple[int, bool]
    head_norms: bool
    adapted_widths: tuple[int, ...]
    adapted_mlp_inputs: tuple[int, ...]
    is_native: bool
    rotates_apart: bool

    @property
    def is_gated(self) -> bool:
        """Whether the MLP multiplies two halves."""
        return self.mlp_in > self.mlp_out

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in all layers, in half precision."""
        return self.layers * 2 * self.key_width * _HALF


def read_network_size(
    name: str,
    *,
    revision: str | None = None,
    rank: int,
    target_modules: tuple[str, ...] | Literal["all-linear"],
    quantize: bool,
) -> NetworkSize:
    """The sizes of a model by its configuration; its weights are not looked at.

    Args:
        name: As `load_model`.
        revision: Likewise.
        rank: Of the adapter.
        target_modules: As `add_lora`.
        quantize: Whether the linear layers will be in NF4.

    Raises:
        ModelError: the configuration cannot be found or read.
        ConfigError: a LoRA target matches no layer.
    """
    from tripletune.models.loading import build_empty_model

    model = build_empty_model(name, revision=revision)
    return describe_network(model, rank=rank, target_modules=target_modules, quantize=quantize)


def describe_network(
    model: Any,
    *,
    rank: int,
    target_modules: tuple[str, ...] | Literal["all-linear"],
    quantize: bool,
) -> NetworkSize:
    """The sizes of a causal model before quantisation and adapter, on whatever device.

    Args:
        model: See `read_network_size`, as for the other arguments.
        rank: See there.
        target_modules: See there.
        quantize: See there.

    Raises:
        ConfigError: a LoRA target matches no layer.
    """
    from torch import nn

    from tripletune.models.head_sizes import find_head_width, find_key_heads
    from tripletune.models.loading import find_position_scheme
    from tripletune.training.adapters import find_linear_names

    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    names = find_linear_names(model)
    targets = names if target_modules == "all-linear" else list(target_modules)
    for target in targets:
        if target not in names:
            raise ConfigError(
                f"lora_target_modules: {target!r} matches no linear layer in "
                f"{type(model).__name__}; available: {', '.join(names)}"
            )
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    block = _find_block(model)
    inside = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
    mlp = {n: m for n, m in inside.items() if "att" not in n}
    down = [m for m in mlp.values() if m.out_features == config.hidden_size] or list(mlp.values())
    mlp_in = sum(m.out_features for m in mlp.values()) - down[-1].out_features
    heads = int(config.num_attention_heads)
    head_width = find_head_width(config)
    adapted = [m for n, m in linear.items() if n.rpartition(".")[2] in targets]
    wide, plain = _find_norms(block, config.hidden_size)
    return NetworkSize(
        weight_bytes=_count_bytes(model, linear.values(), quantize=quantize),
        frozen_parameters=sum(m.weight.numel() for m in linear.values()),
        trainable=sum(rank * (m.in_features + m.out_features) for m in adapted),
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        query_width=heads * head_width,
        key_width=find_key_heads(config) * head_width,
        heads=heads,
        mlp_in=mlp_in,
        mlp_out=down[-1].in_features,
        vocabulary=int(head.weight.shape[0]),
        largest_weight=max(m.weight.numel() for m in inside.values()),
        norms=(wide, plain),
        head_norms=_has_norms(block, head_width),
        adapted_widths=tuple(
            m.in_features for n, m in inside.items() if n.rpartition(".")[2] in targets
        ),
        adapted_mlp_inputs=tuple(
            sorted({m.in_features for n, m in mlp.items() if n.rpartition(".")[2] in targets})
        ),
        is_native=is_native(model),
        rotates_apart=find_position_scheme(model) == "two_rows" and _lacks_kernels(),
    )


def _lacks_kernels() -> bool:
    """A machine without a GPU plans for another, which is taken to have them."""
    import torch

    from tripletune.models.packed_attention import has_packed_attention

    return torch.cuda.is_available() and not has_packed_attention()


def is_native(base: Any) -> bool:
    """Whether a network is one of this package's own."""
    return type(base).__module__.startswith("tripletune.")


def _find_block(model: Any) -> Any:
    from transformers.modeling_layers import GradientCheckpointingLayer

    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for place in (decoder, model):
        for module in place.modules():
            if isinstance(module, GradientCheckpointingLayer):
                return module
    raise ConfigError(
        f"model: {type(model).__name__} has no blocks whose memory could be planned; give another "
        "model"
    )


def _find_norms(block: Any, width: int) -> tuple[int, bool]:
    """How many norms of the residual stream there are, and whether they are plain LayerNorms."""
    from torch import nn

    found = [m for m in block.modules() if "Norm" in type(m).__name__ and _is_as_wide(m, width)]
    return len(found), all(isinstance(m, nn.LayerNorm) for m in found)


def _has_norms(block: Any, width: int) -> bool:
    return any("Norm" in type(m).__name__ and _is_as_wide(m, width) for m in block.modules())


def _is_as_wide(module: Any, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and tuple(weight.shape) == (width,)


def _count_bytes(model: Any, linear: Any, *, quantize: bool) -> int:
    """Bytes of the weights: linear layers in NF4 with double quantisation, the rest in 16 bits."""
    quantised = {id(module.weight): module.weight.numel() for module in linear} if quantize else {}
    packed = 0
    count: int
    for count in quantised.values():
        groups = -(-count // _NF4_GROUP)
        packed += count // 2 + groups + 4 * -(-groups // _NF4_OUTER_GROUP)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    rest: dict[int, int] = {id(p): p.numel() for p in model.parameters() if id(p) not in quantised}
    if model.config.get_text_config().tie_word_embeddings and head.weight is not embeddings.weight:
        rest.pop(id(head.weight), None)
    return packed + _HALF * sum(rest.values())
