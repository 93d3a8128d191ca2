"""Configuration of ChatGLM2-6B and ChatGLM3-6B, with the field names of the official files."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers.configuration_utils import PreTrainedConfig

from tripletune.errors import ModelError

__all__ = ["ChatGLM2Config"]

# Settings of the official code that this network has in one form only. A folder that asks for
# another form holds another network, and loading it as this one would be silently wrong.
_ONLY_VALUES: dict[str, Any] = {
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "fp32_residual_connection": False,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "rope_ratio": 1,
}


class ChatGLM2Config(PreTrainedConfig):
    """Sizes and special token ids of a ChatGLM2-6B or ChatGLM3-6B network.

    The defaults are those of the official ChatGLM2-6B. All fields of the official `config.json`
    are read and written under their official names; those of `transformers` (`num_hidden_layers`,
    `vocab_size`, ...) are other names for the same values.

    `rotary_in_fp32` is the one difference between the networks of the two generations: whether
    rotary angles are computed in fp32 when the model runs in fp16 (ChatGLM3) or in fp16, as the
    official ChatGLM2 code does. The official files have no such field. Without it, a folder is
    taken for ChatGLM3 when its `_name_or_path`, or the name it is loaded by, contains `chatglm3`,
    or when `seq_length` is 8192 (ChatGLM2 has 32768). Saving writes the field.

    `auto_map` (the official Python files) is dropped: this class replaces them.

    Raises:
        ModelError: a setting that would be another network: pre-quantised weights, a prefix
            encoder, another rotary embedding, or sizes that do not divide.
    """

    model_type = "chatglm2"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "vocab_size": "padded_vocab_size",
        "intermediate_size": "ffn_hidden_size",
        "head_dim": "kv_channels",
        "num_key_value_heads": "multi_query_group_num",
        "max_position_embeddings": "seq_length",
        "rms_norm_eps": "layernorm_epsilon",
    }

    num_layers: int = 28
    padded_vocab_size: int = 65024
    hidden_size: int = 4096
    ffn_hidden_size: int = 13696
    kv_channels: int = 128
    num_attention_heads: int = 32
    multi_query_group_num: int = 2
    seq_length: int = 32768
    layernorm_epsilon: float = 1e-5
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    rotary_in_fp32: bool | None = None
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)
        kwargs.pop("model_type", None)
        names = f"{kwargs.get('_name_or_path', '')} {kwargs.get('name_or_path', '')}"
        if self.rotary_in_fp32 is None:
            self.rotary_in_fp32 = "chatglm3" in names.lower() or self.seq_length == 8192
        self._check(names.split()[0] if names.strip() else "model", kwargs)
        super().__post_init__(**kwargs)

    def _check(self, name: str, others: dict[str, Any]) -> None:
        if others.get("quantization_bit"):
            raise ModelError(
                f"{name}: quantization_bit: {others['quantization_bit']!r} holds weights of the "
                "official quantiser, which cannot be fine-tuned; use the full-precision model of "
                "the same name without -int4 or -int8 (it is quantised while loading)"
            )
        if others.get("pre_seq_len"):
            raise ModelError(
                f"{name}: pre_seq_len: {others['pre_seq_len']!r} asks for a P-Tuning prefix "
                "encoder, which is not supported; remove the field to load the plain model"
            )
        for key, only in _ONLY_VALUES.items():
            if key in others and others[key] is not None and others[key] != only:
                raise ModelError(
                    f"{name}: {key}: {others[key]!r} describes another network; only {only!r} is "
                    "supported: use THUDM/chatglm2-6b or THUDM/chatglm3-6b"
                )
        if self.num_attention_heads % self.multi_query_group_num or self.kv_channels % 4:
            raise ModelError(
                f"{name}: num_attention_heads {self.num_attention_heads!r} must be a multiple of "
                f"multi_query_group_num {self.multi_query_group_num!r}, and kv_channels "
                f"{self.kv_channels!r} of 4; download config.json again"
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of a folder's `config.json`, and the arguments that are not fields."""
        fields, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        # The official name of all ChatGLM generations; `transformers` would warn that it differs.
        if fields.get("model_type") == "chatglm":
            fields = {**fields, "model_type": cls.model_type}
        fields = {"name_or_path": str(pretrained_model_name_or_path), **fields}
        return fields, unused

    def to_dict(self) -> dict[str, Any]:
        """The fields, with the `model_type` and the architecture name of the official files."""
        fields: dict[str, Any] = super().to_dict()
        fields["model_type"] = "chatglm"
        if fields.get("architectures"):
            fields["architectures"] = ["ChatGLMModel"]
        return fields
