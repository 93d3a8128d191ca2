"""ChatGLM2-6B and ChatGLM3-6B, as one `transformers` model.

What is unusual about this network:

- Rotary positions turn only the first half of every head, as interleaved pairs (2i, 2i + 1); the
  second half passes as it is.
- `query_key_value` holds the queries of all heads, then the keys, then the values of the groups;
  group g serves the H / G heads from g * H / G onwards. It has a bias, every other matrix has none.
- `dense_h_to_4h` makes gate and value of a SwiGLU in one product: silu(first half) * second half.
- The head (`output_layer`) lies inside the base model and does not share the embedding matrix.
- The recorded hidden states end before the final norm.
- `inv_freq` is part of the official state dict, in half precision. It is kept under its name, but
  the angles never use its values: they are computed from the sizes.
- In fp16, ChatGLM2 computes the rotary angles in fp16 too and ChatGLM3 in fp32
  (`ChatGLM2Config.rotary_in_fp32`). In bf16, whose integers end at 256, both use fp32 here.

A row may hold several packed documents: `position_ids` restart and no attention mask is given.

Source: the behaviour of the official ChatGLM2-6B and ChatGLM3-6B implementations, from recorded
tensors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from tripletune.errors import DataError
from tripletune.models.causal_head import CausalHead
from tripletune.models.causal_mask import build_causal_mask
from tripletune.models.chatglm2_chat import ChatGLM2ChatMixin
from tripletune.models.chatglm2_rotary import (
    RotaryEmbedding,
    rotate_interleaved,
    spread_rotary,
)
from tripletune.models.configuration_chatglm2 import ChatGLM2Config
from tripletune.models.loss import take_tokens
from tripletune.models.packed_attention import is_packed
from tripletune.models.slot_attention import has_kernels
from tripletune.models.split_heads import project_apart, split_heads

__all__ = ["ChatGLM2Config", "ChatGLM2ForConditionalGeneration", "ChatGLM2Model"]


class RMSNorm(nn.Module):
    """Division by the root mean square, computed in fp32, times a weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, E) to (B, S, E), in the dtype of the input."""
        wide = hidden_states.float()
        scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.epsilon)
        return (self.weight * (wide * scale)).to(hidden_states.dtype)


class ChatGLM2Attention(nn.Module):
    """Self-attention with few key and value groups."""

    def __init__(self, config: ChatGLM2Config, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.kv_channels
        self.num_key_value_groups = config.num_attention_heads // config.multi_query_group_num
        self.query_size = config.num_attention_heads * self.head_dim
        self.group_size = config.multi_query_group_num * self.head_dim
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.is_causal = True
        self.query_key_value = nn.Linear(config.hidden_size, self.query_size + 2 * self.group_size)
        self.dense = nn.Linear(self.query_size, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: Tensor,
        rotary: tuple[Tensor, Tensor],
        attention_mask: Any = None,
        past_key_values: Cache | None = None,
        kept_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention output (B, S, E) and, from the eager implementation, probabilities."""
        fused = is_packed(attention_mask) and has_kernels(hidden_states, self.head_dim)
        query, key, value = self._split(hidden_states, rotary, fused=fused)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, G, K, D)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        output, probabilities = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )  # (B, S, H, D)
        output = output.reshape(*hidden_states.shape[:2], -1)  # (B, S, H D)
        return self.dense(take_tokens(output, kept_tokens)), probabilities

    def _split(
        self, hidden_states: Tensor, rotary: tuple[Tensor, Tensor], *, fused: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (B, H, S, D) and keys, and values, (B, G, S, D) each."""
        sizes = [self.query_size, self.group_size, self.group_size]
        if fused:
            heads, groups = (size // self.head_dim for size in sizes[:2])
            projected = project_apart(self.query_key_value, hidden_states)
            parts: Any = split_heads(
                projected, *rotary, heads=heads, groups=groups, by_head=False, distance=1
            )
        else:
            mixed = self.query_key_value(hidden_states)  # (B, S, (H + 2G) D)
            by_head = (*mixed.shape[:2], -1, self.head_dim)
            parts = [part.view(by_head) for part in torch.split(mixed, sizes, dim=-1)]
        query, key, value = (part.transpose(1, 2) for part in parts)
        if not fused:
            query, key = rotate_interleaved(query, *rotary), rotate_interleaved(key, *rotary)
        return query, key, value


class ChatGLM2MLP(nn.Module):
    """SwiGLU: silu(gate) * value, both from one matrix."""

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 2 * config.ffn_hidden_size, bias=False)
        self.dense_4h_to_h = nn.Linear(config.ffn_hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, E) to (B, S, E)."""
        gate, value = self.dense_h_to_4h(hidden_states).chunk(2, dim=-1)  # (B, S, F) each
        output: Tensor = self.dense_4h_to_h(F.silu(gate) * value)
        return output


class ChatGLM2Block(GradientCheckpointingLayer):
    """One layer: attention, then MLP, each on the normalised stream and added to it."""

    def __init__(self, config: ChatGLM2Config, layer_idx: int) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout
        self.input_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.self_attention = ChatGLM2Attention(config, layer_idx)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.mlp = ChatGLM2MLP(config)

    def forward(
        self, hidden_states: Tensor, kept_tokens: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """(B, S, E) to (B, S, E), and the attention probabilities if there are any.

        With `kept_tokens` to (1, N, E): only the N tokens there.
        """
        normed = self.input_layernorm(hidden_states)
        output, probabilities = self.self_attention(normed, kept_tokens=kept_tokens, **kwargs)
        hidden_states = take_tokens(hidden_states, kept_tokens)
        hidden_states = hidden_states + F.dropout(output, self.dropout, self.training)
        output = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + F.dropout(output, self.dropout, self.training), probabilities


class ChatGLM2Encoder(nn.Module):
    """The layers and the final norm, under their official names."""

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [ChatGLM2Block(config, layer_idx) for layer_idx in range(config.num_layers)]
        )
        self.final_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)


class ChatGLM2Embedding(nn.Module):
    """The token embeddings, under their official name."""

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__()
        self.word_embeddings: nn.Module = nn.Embedding(config.padded_vocab_size, config.hidden_size)


class ChatGLM2PreTrainedModel(PreTrainedModel):
    """What both classes of this file tell `transformers` about themselves."""

    config_class = ChatGLM2Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ChatGLM2Block"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    takes_label_count = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RotaryEmbedding):
            init.copy_(module.inv_freq, module.compute_frequencies(torch.float32, None))


class ChatGLM2Model(ChatGLM2PreTrainedModel):
    """Embeddings, layers and final norm: token ids to hidden states; and the head's matrix."""

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__(config)
        self.embedding = ChatGLM2Embedding(config)
        self.rotary_pos_emb = RotaryEmbedding(config)
        self.encoder = ChatGLM2Encoder(config)
        self.output_layer = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.embedding.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings."""
        self.embedding.word_embeddings = value

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head."""
        return self.output_layer

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the language-model head."""
        self.output_layer = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        kept_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states after the final norm, (B, S, E), or (1, N, E) with `kept_tokens`.

        Args:
            input_ids: (B, S) token ids; or `inputs_embeds` (B, S, E).
            attention_mask: (B, K) with 1 at real tokens; or an explicit (B or 1, 1, S, K) mask,
                bool with True where attention is allowed or additive; or a `BlockMask`. None:
                every token is real.
            position_ids: (B, S). None: counted from the first real token, 0 on left padding.
                Without an attention mask, a row whose positions restart holds several packed
                documents, which do not see each other.
            past_key_values: Keys and values of the tokens before.
            inputs_embeds: See `input_ids`.
            use_cache: Whether to return keys and values. None: as configured, not in training.
            output_hidden_states: Whether to return the embeddings and every layer's output, all
                of them before the final norm.
            output_attentions: Whether to return the probabilities (B, H, S, K) of every layer;
                only the eager implementation has them.
            kept_tokens: (N,) places among all B x S tokens: the last layer's output is computed
                for these alone.
            **kwargs: Passed to the attention implementation.

        Raises:
            DataError: both or neither of `input_ids` and `inputs_embeds` are given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise DataError("input_ids, inputs_embeds: give exactly one of the two")
        if inputs_embeds is None:
            inputs_embeds = self.embedding.word_embeddings(input_ids)
        mask = build_causal_mask(
            self.config, inputs_embeds, attention_mask, position_ids, past_key_values
        )
        if position_ids is None:
            position_ids = build_position_ids(inputs_embeds, attention_mask, past_key_values)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        rotary = self.rotary_pos_emb(position_ids, inputs_embeds.dtype)
        if is_packed(mask) and has_kernels(inputs_embeds, self.config.kv_channels):
            rotary = spread_rotary(*rotary)
        hidden_states = inputs_embeds
        all_hidden_states: tuple[Tensor, ...] = (hidden_states,)
        all_attentions: tuple[Tensor | None, ...] = ()
        for number, layer in enumerate(self.encoder.layers, 1):
            hidden_states, probabilities = layer(
                hidden_states,
                kept_tokens=kept_tokens if number == self.config.num_layers else None,
                rotary=rotary,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                **kwargs,
            )
            all_hidden_states += (hidden_states,) if output_hidden_states else ()
            all_attentions += (probabilities,) if output_attentions else ()
        return BaseModelOutputWithPast(
            last_hidden_state=self.encoder.final_layernorm(hidden_states),
            past_key_values=past_key_values,
            hidden_states=all_hidden_states if output_hidden_states else None,
            attentions=all_attentions if output_attentions else None,
        )


class ChatGLM2ForConditionalGeneration(
    CausalHead, ChatGLM2PreTrainedModel, ChatGLM2ChatMixin, GenerationMixin
):
    """ChatGLM2-6B or ChatGLM3-6B with its language-model head."""

    transformer: ChatGLM2Model

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__(config)
        self.transformer = ChatGLM2Model(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head."""
        return self.transformer.output_layer

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the language-model head."""
        self.transformer.output_layer = new_embeddings

    def create_masks_for_generate(
        self, config: ChatGLM2Config, attention_mask: Tensor | None, **kwargs: Any
    ) -> Any:
        """The mask that `generate` passes with a static cache, whose steps may be compiled.

        Flex attention keeps the (B, K) mask: `generate` cannot handle block masks.
        """
        if config._attn_implementation == "flex_attention":
            return attention_mask
        return create_masks_for_generate(config=config, attention_mask=attention_mask, **kwargs)


def build_position_ids(
    inputs_embeds: Tensor, attention_mask: Any, past_key_values: Cache | None
) -> Tensor:
    """(B or 1, S) positions: counted from each row's first real token, after the cached ones.

    Args:
        inputs_embeds: (B, S, E), for the length.
        attention_mask: (B, K) with 1 at real tokens; anything else means that all are real.
        past_key_values: Keys and values of the tokens before.
    """
    length = inputs_embeds.shape[1]
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
        positions = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        return positions[:, -length:].to(inputs_embeds.device)
    num_past = 0 if past_key_values is None else past_key_values.get_seq_length()
    return (torch.arange(length, device=inputs_embeds.device) + num_past)[None]


def eager_attention(
    module: ChatGLM2Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out: output (B, S, H, D) and probabilities (B, H, S, K)."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)  # (B, H, K, D)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = (query @ key.transpose(2, 3)).float() * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.softmax(dim=-1).to(query.dtype)
    probabilities = F.dropout(probabilities, dropout, module.training)
    return (probabilities @ value).transpose(1, 2), probabilities
