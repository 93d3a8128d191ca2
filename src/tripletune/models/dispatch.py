"""Which ChatGLM a folder holds, when its own files only say `chatglm`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

from transformers.configuration_utils import PreTrainedConfig
from transformers.tokenization_python import PreTrainedTokenizer

from tripletune.errors import ModelError
from tripletune.models.checkpoint_files import describe_prequantised
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.configuration_chatglm2 import ChatGLM2Config
from tripletune.models.weight_shapes import check_weight_shapes

__all__ = ["ChatGLMFamilyConfig", "ChatGLMTokenizer", "LazyChatGLM", "LazyChatGLM2"]


class ChatGLMFamilyConfig(PreTrainedConfig):
    """Reads a `chatglm` config as the class its fields belong to.

    ChatGLM2 and 3 have `padded_vocab_size` (or `multi_query_group_num`); ChatGLM-6B has
    `inner_hidden_size`. An official INT4 or INT8 checkpoint is refused.
    """

    model_type = "chatglm"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The `ChatGLMConfig` or `ChatGLM2Config` that the fields describe.

        Raises:
            ModelError: the fields belong to neither, or describe pre-quantised weights.
        """
        if config_dict.get("quantization_bit"):
            place = kwargs.get("name_or_path") or config_dict.get("_name_or_path") or ""
            raise ModelError(describe_prequantised(config_dict, Path(str(place)) / "config.json"))
        if "padded_vocab_size" in config_dict or "multi_query_group_num" in config_dict:
            return ChatGLM2Config.from_dict(config_dict, **kwargs)
        if "inner_hidden_size" in config_dict:
            return ChatGLMConfig.from_dict(config_dict, **kwargs)
        raise ModelError(
            "model: config.json says 'chatglm' but has neither inner_hidden_size (ChatGLM-6B) nor "
            "padded_vocab_size (ChatGLM2/3-6B); download the model folder again"
        )


class ChatGLMTokenizer(PreTrainedTokenizer):
    """Loads the tokenizer of whichever ChatGLM a folder holds; never instantiated itself."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer of ChatGLM-6B, 2 or 3, told apart by vocabulary file and name.

        Raises:
            ModelError: the folder has neither `ice_text.model` nor `tokenizer.model`.
        """
        tokenizer_class = _find_tokenizer_class(pretrained_model_name_or_path, kwargs)
        return tokenizer_class.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


class LazyChatGLM:
    """Stands for `ChatGLMForConditionalGeneration` in the Auto classes' tables.

    The Auto classes are loaded while half of `transformers` is still being imported, when a network
    that builds on it cannot be; it is imported when a model is first asked for.
    """

    config_class: ClassVar[type[PreTrainedConfig]] = ChatGLMConfig
    network: ClassVar[tuple[str, str]] = (
        "tripletune.models.chatglm",
        "ChatGLMForConditionalGeneration",
    )

    @classmethod
    def network_class(cls) -> Any:
        """The class that this one stands for."""
        module, name = cls.network
        return getattr(importlib.import_module(module), name)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """The network with the weights of a folder or hub id.

        Raises:
            ModelError: a weight file of the folder is missing, damaged or of another size.
        """
        if _is_whole_model(pretrained_model_name_or_path, kwargs):
            check_weight_shapes(pretrained_model_name_or_path)
        return cls.network_class().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        return cls.network_class()._from_config(config, **kwargs)


class LazyChatGLM2(LazyChatGLM):
    """Stands for `ChatGLM2ForConditionalGeneration`, likewise."""

    config_class = ChatGLM2Config
    network = ("tripletune.models.chatglm2", "ChatGLM2ForConditionalGeneration")


def _is_whole_model(name: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a folder's own plain weights are about to be loaded as they are."""
    unusual = ("state_dict", "subfolder", "variant", "gguf_file", "ignore_mismatched_sizes")
    if name is None or not Path(name).is_dir() or any(kwargs.get(key) for key in unusual):
        return False
    return getattr(kwargs.get("config"), "quantization_config", None) is None


def _find_tokenizer_class(name: Any, kwargs: dict[str, Any]) -> Any:
    from transformers.models.auto.tokenization_auto import get_tokenizer_config
    from transformers.utils.hub import cached_file

    from tripletune.models.tokenization_chatglm import ChatGLMTokenizer as ChatGLM1Tokenizer

    hub: dict[str, Any] = {
        key: kwargs[key] for key in ("cache_dir", "revision", "token") if key in kwargs
    }
    hub |= {"local_files_only": bool(kwargs.get("local_files_only"))}

    def has(filename: str) -> bool:
        return (
            cached_file(
                name,
                filename,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **hub,
            )
            is not None
        )

    if has("ice_text.model"):
        return ChatGLM1Tokenizer
    if not has("tokenizer.model"):
        raise ModelError(
            f"tokenizer: {str(name)!r} has neither ice_text.model (ChatGLM-6B) nor tokenizer.model "
            "(ChatGLM2/3-6B); download the model folder again, complete"
        )
    from tripletune.models.tokenization_chatglm2 import (
        ChatGLM2Tokenizer,
        ChatGLM3Tokenizer,
        is_chatglm3_tokenizer,
    )

    settings = get_tokenizer_config(name, **hub)
    is_third = is_chatglm3_tokenizer(settings) or "chatglm3" in str(name).lower()
    return ChatGLM3Tokenizer if is_third else ChatGLM2Tokenizer
