"""ChatGLM-6B (the first one), as a `transformers` model.

What is unusual about this network:

- Two positions for each token. Half of every head is rotated by the place in the context, the
  other half by the place in the answer. In the context the second is 0; in the answer the first
  stays at the place of the mask token the answer stands for (`build_position_ids`).
- The context (everything before `<sop>`) is seen by every token, in both directions; the answer,
  `<sop>` included, is causal.
- The residual is the normalised input, scaled: `x = alpha * norm(x) + f(norm(x))`, with
  `alpha = (2 * 28) ** 0.5` whatever the number of layers, as in the official code.
- `query_key_value` is laid out head by head: [head][query, key, value][D].
- The rotary frequencies are rounded to half precision, as they were in training.
- A boolean attention mask of four dimensions follows the official tokenizer: True is masked.

Source: the behaviour of the official ChatGLM-6B implementation, from recorded tensors. Scores are
not scaled by the layer number and back, which cancels; angles are fp32 in every dtype.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from tripletune.errors import DataError
from tripletune.models.attention_mask import build_prefix_mask
from tripletune.models.causal_head import CausalHead
from tripletune.models.chat import ChatMixin
from tripletune.models.chatglm_positions import (
    build_position_ids,
    build_rotary,
    find_documents,
    read_real_tokens,
    rotate_two_rows,
)
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loss import take_tokens
from tripletune.models.packed_attention import PACKED_ATTENTION, is_packed
from tripletune.models.slot_attention import has_kernels
from tripletune.models.split_heads import project_apart, split_heads

__all__ = ["ChatGLMForConditionalGeneration", "ChatGLMModel", "build_position_ids"]

RESIDUAL_ALPHA = (2 * 28) ** 0.5


class ChatGLMAttention(nn.Module):
    """Self-attention with rotary positions of two rows."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

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
        batch_size, length, _ = hidden_states.shape
        fused = is_packed(attention_mask) and has_kernels(hidden_states, self.head_dim)
        query, key, value = self._split(hidden_states, rotary, fused=fused)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, H, K, D)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        output, probabilities = attend(
            self, query, key, value, attention_mask, scaling=self.scaling, **kwargs
        )
        output = output.reshape(batch_size, length, -1)  # (B, S, E)
        return self.dense(take_tokens(output, kept_tokens)), probabilities

    def _split(
        self, hidden_states: Tensor, rotary: tuple[Tensor, Tensor], *, fused: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, (B, H, S, D) each."""
        heads, width = self.num_heads, self.head_dim
        if fused:
            # Of both partners, the second has the sine with its sign; (B, S, D/2) each.
            cosine, sine = (table[..., 1, :].flatten(2) for table in rotary)
            projected = project_apart(self.query_key_value, hidden_states)
            parts = split_heads(
                projected,
                cosine,
                sine,
                heads=heads,
                groups=heads,
                by_head=True,
                distance=width // 4,
            )
            query, key, value = (part.transpose(1, 2) for part in parts)
            return query, key, value
        mixed = self.query_key_value(hidden_states)  # (B, S, 3E)
        mixed = mixed.view(*mixed.shape[:2], heads, 3 * width)
        query, key, value = mixed.chunk(3, dim=-1)  # (B, S, H, D) each
        query, key = rotate_two_rows(query, *rotary), rotate_two_rows(key, *rotary)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class ChatGLMMLP(nn.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, E) to (B, S, E)."""
        inner = _gelu(self.dense_h_to_4h(hidden_states))  # (B, S, F)
        output: Tensor = self.dense_4h_to_h(inner)
        return output


def _gelu(x: Tensor) -> Tensor:
    """The tanh form of GELU; compiled, by a sigmoid, which has a faster instruction."""
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return F.gelu(x, approximate="tanh")


class ChatGLMBlock(GradientCheckpointingLayer):
    """One layer: attention, then MLP, each added to its own scaled and normalised input."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(
            config.hidden_size, eps=config.layernorm_epsilon
        )
        self.mlp = ChatGLMMLP(config)

    def forward(
        self, hidden_states: Tensor, kept_tokens: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """(B, S, E) to (B, S, E), and the attention probabilities if there are any.

        With `kept_tokens` to (1, N, E): only the N tokens there.
        """
        normed = self.input_layernorm(hidden_states)
        attended, probabilities = self.attention(normed, kept_tokens=kept_tokens, **kwargs)
        normed = take_tokens(normed, kept_tokens)
        hidden_states = torch.add(attended, normed, alpha=RESIDUAL_ALPHA)
        normed = self.post_attention_layernorm(hidden_states)
        return torch.add(self.mlp(normed), normed, alpha=RESIDUAL_ALPHA), probabilities


class ChatGLMPreTrainedModel(PreTrainedModel):
    """What both classes of this file tell `transformers` about themselves."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["ChatGLMBlock"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"rotary_emb\.inv_freq$"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    takes_label_count = True


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Embeddings, blocks and final norm: token ids to hidden states."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [ChatGLMBlock(config, layer_idx) for layer_idx in range(config.num_layers)]
        )
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the token embeddings."""
        self.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
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
            input_ids: (B, S) token ids; or `inputs_embeds` (B, S, E), with `position_ids`.
            attention_mask: (B, K) with 1 at real tokens, or the official tokenizer's
                (B, 1, S, S) bool with True at masked pairs, or runs (`attend_packed`). None:
                every token is real.
            position_ids: (B, 2, S). None: built from the ids. Rows whose second position falls
                back to 0 hold several packed documents, which do not see each other.
            past_key_values: Keys and values of the tokens before.
            inputs_embeds: See `input_ids`.
            use_cache: Whether to return keys and values.
            output_hidden_states: Whether to return the embeddings and every layer's output, the
                last one after the final norm.
            output_attentions: Whether to return the probabilities (B, H, S, K) of every layer;
                only the eager implementation has them.
            kept_tokens: (N,) places among all B x S tokens: the last layer's output is computed
                for these alone.
            **kwargs: Passed to the attention implementation.

        Raises:
            DataError: the ids hold no `<sop>`, or no mask token, and positions must be built.
        """
        if position_ids is None:
            if input_ids is None:
                raise DataError("inputs_embeds: need position_ids (B, 2, S) beside them")
            position_ids = build_position_ids(input_ids, self.config, attention_mask=attention_mask)
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        mask = self._build_mask(inputs_embeds, attention_mask, position_ids, past_key_values)
        rotary = build_rotary(position_ids, self.config)
        hidden_states = inputs_embeds
        all_hidden_states = [hidden_states]
        all_attentions: list[Tensor | None] = []
        for number, layer in enumerate(self.layers, 1):
            hidden_states, probabilities = layer(
                hidden_states,
                kept_tokens=kept_tokens if number == len(self.layers) else None,
                rotary=rotary,
                attention_mask=mask,
                past_key_values=past_key_values,
                **kwargs,
            )
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            if output_attentions:
                all_attentions.append(probabilities)
        hidden_states = self.final_layernorm(hidden_states)
        all_hidden_states[-1] = hidden_states
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )

    def _build_mask(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Cache | None,
    ) -> Any:
        if is_packed(attention_mask):
            return attention_mask
        num_queries = inputs_embeds.shape[1]
        num_past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if isinstance(num_past, Tensor):
            num_past = num_past.clone().reshape(())  # a static cache counts it up in place
        if past_key_values is not None and past_key_values.is_compileable:
            num_keys = past_key_values.layers[0].max_cache_len
        else:
            num_keys = num_past + num_queries
        is_real = read_real_tokens(attention_mask)
        if is_real is not None:
            is_real = F.pad(is_real[:, :num_keys], (0, num_keys - is_real.shape[1]), value=True)
        is_context, document_ids = None, None
        if num_queries > 1 and int(num_past) == 0:
            block_position = position_ids[:, 1]  # (B, S)
            is_context = F.pad(block_position == 0, (0, num_keys - num_queries))
            if is_real is None:
                document_ids = find_documents(
                    block_position,
                    num_keys,
                    always=self.config._attn_implementation == PACKED_ATTENTION,
                )
        return build_prefix_mask(
            self.config._attn_implementation,
            num_queries=num_queries,
            num_keys=num_keys,
            first_query=num_past,
            is_context=is_context,
            is_real=is_real,
            document_ids=document_ids,
            dtype=inputs_embeds.dtype,
            device=inputs_embeds.device,
        )


class ChatGLMForConditionalGeneration(
    CausalHead, ChatGLMPreTrainedModel, ChatMixin, GenerationMixin
):
    """ChatGLM-6B with its language-model head, which shares the embedding matrix."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "lm_head.weight": "transformer.word_embeddings.weight"
    }

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`; a stored head never replaces the embeddings.

        Official folders store `lm_head.weight` beside the embeddings. Recent `transformers` unties
        the two where the stored values differ; the official model always shares them.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.tie_word_embeddings:
            model.lm_head.weight = model.transformer.word_embeddings.weight
        return loaded

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the language-model head."""
        self.lm_head = new_embeddings

    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """As `GenerationMixin.generate`; the official four-dimensional mask is taken too."""
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() == 4:
            kwargs["attention_mask"] = (~mask[:, 0, -1].bool()).long()
        return super().generate(inputs, **kwargs)

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]
    ) -> Tensor:
        input_ids = model_kwargs.get("input_ids", inputs_tensor)
        return build_position_ids(
            input_ids, self.config, attention_mask=model_kwargs.get("attention_mask")
        )

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        position_ids = model_kwargs.pop("position_ids")
        model_kwargs = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, *args, **kwargs
        )
        step = torch.tensor([[0], [1]], device=position_ids.device)
        newest = position_ids[..., -1:] + step  # (B, 2, 1)
        model_kwargs["position_ids"] = torch.cat([position_ids, newest], dim=-1)
        return model_kwargs

    @staticmethod
    def create_masks_for_generate(
        *, attention_mask: Tensor | None, past_key_values: Cache, **kwargs: Any
    ) -> Tensor | None:
        """The padding mask at the cache's full length, so that a compiled step keeps its shape."""
        if attention_mask is None:
            return None
        missing = past_key_values.layers[0].max_cache_len - attention_mask.shape[1]
        return F.pad(attention_mask, (0, missing), value=1)


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out: output (B, S, H, D) and probabilities (B, H, S, K)."""
    scores = query.float() @ key.float().transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.softmax(dim=-1).to(query.dtype)
    return (probabilities @ value).transpose(1, 2), probabilities
