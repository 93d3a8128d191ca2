"""Configuration of ChatGLM-6B, with the field names of its official `config.json`."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers.configuration_utils import PreTrainedConfig

__all__ = ["ChatGLMConfig"]


class ChatGLMConfig(PreTrainedConfig):
    """Sizes and special token ids of a ChatGLM-6B network.

    The defaults are those of the official ChatGLM-6B. `hidden_size` must be divisible by four
    times `num_attention_heads` (two rotary halves of two parts each).
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }

    def __init__(
        self,
        *,
        vocab_size: int = 130528,
        hidden_size: int = 4096,
        num_layers: int = 28,
        num_attention_heads: int = 32,
        inner_hidden_size: int = 16384,
        layernorm_epsilon: float = 1e-5,
        max_sequence_length: int = 2048,
        position_encoding_2d: bool = True,
        mask_token_id: int = 130000,
        gmask_token_id: int = 130001,
        bos_token_id: int = 130004,
        eos_token_id: int = 130005,
        pad_token_id: int = 3,
        use_cache: bool = True,
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_attention_heads = num_attention_heads
        self.inner_hidden_size = inner_hidden_size
        self.layernorm_epsilon = layernorm_epsilon
        self.max_sequence_length = max_sequence_length
        self.position_encoding_2d = position_encoding_2d
        self.mask_token_id = mask_token_id
        self.gmask_token_id = gmask_token_id
        self.use_cache = use_cache
        self.initializer_range = initializer_range
        super().__init__(
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )
