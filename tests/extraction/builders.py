"""Small random networks and tokenizers that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
}
"""Of networks from `transformers`."""


def build_chatglm(vocab_size: int = 40, **sizes: Any) -> Any:
    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.configuration_chatglm import ChatGLMConfig

    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "inner_hidden_size": 64,
        "initializer_range": 0.5,
    }
    if vocab_size == 40:
        defaults.update(mask_token_id=30, gmask_token_id=31, bos_token_id=32, eos_token_id=33)
    return ChatGLMForConditionalGeneration(
        ChatGLMConfig(vocab_size=vocab_size, **{**defaults, **sizes})
    ).eval()


def build_chatglm2(vocab_size: int = 40, **sizes: Any) -> Any:
    from tripletune.models.chatglm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration

    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 4,
        "multi_query_group_num": 2,
        "kv_channels": 8,
        "ffn_hidden_size": 64,
        "initializer_range": 0.5,
    }
    return ChatGLM2ForConditionalGeneration(
        ChatGLM2Config(padded_vocab_size=vocab_size, **{**defaults, **sizes})
    ).eval()


def build_llama(vocab_size: int = 40, **sizes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": vocab_size, **sizes}
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


_SMALL: dict[str, Any] = {**SIZES, "head_dim": 8, "sliding_window": 6}


def build_sliding(**sizes: Any) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    defaults = {**_SMALL, "num_hidden_layers": 3, "layer_types": kinds}
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**defaults, **sizes})).eval()


def build_gemma2() -> Any:
    """Sliding and full layers in turn; scores are capped."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention"]
    return Gemma2ForCausalLM(Gemma2Config(**_SMALL, layer_types=kinds)).eval()


def build_qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    kinds = ["full_attention", "sliding_attention"]
    return Qwen3ForCausalLM(
        Qwen3Config(**_SMALL, layer_types=kinds, use_sliding_window=True)
    ).eval()


def build_deepseek() -> Any:
    """Latent attention: keys are wider than values."""
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    torch.manual_seed(0)
    config = DeepseekV2Config(
        vocab_size=40, hidden_size=32, intermediate_size=64, moe_intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=16,
        q_lora_rank=None, qk_rope_head_dim=16, qk_nope_head_dim=8, v_head_dim=12,
        n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        first_k_dense_replace=1, n_shared_experts=1, initializer_range=0.5,
    )  # fmt: skip
    return DeepseekV2ForCausalLM(config).eval()


def build_mistral() -> Any:
    """A sliding window that is not told layer by layer."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**_SMALL)).eval()


def build_byte_tokenizer() -> Any:
    """A byte-level BPE tokenizer with merges inside and across Chinese characters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        "(甲公司, 位于, 乙市)\n(甲公司, 总部地点, 丙市)",
        "苹果公司总部地点位于库比蒂诺, 加州。",
        "无",
    ]
    tokenizer.train_from_iterator(texts * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def build_sentencepiece(folder: Path) -> Any:
    """A small tokenizer of the ChatGLM-6B kind: NFKC, byte fallback, its named pieces."""
    import sentencepiece

    from tripletune.models.tokenization_chatglm import ChatGLMTokenizer

    corpus = folder / "corpus.txt"
    lines = [
        "(甲公司, 位于, 乙市)",
        "苹果公司总部地点位于库比蒂诺,加州。",
        "格式为(主体, 关系, 客体):",
        "无 a b",
    ]
    corpus.write_text("\n".join(lines * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "ice_text"),
        vocab_size=340,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="nfkc",
        pad_id=3,
        control_symbols=["[MASK]", "[gMASK]", "<sop>", "<eop>"],
        user_defined_symbols=["<n>", "<|tab|>", "<|blank_2|>", "<|blank_3|>"],
        minloglevel=2,
    )
    return ChatGLMTokenizer(str(folder / "ice_text.model"))


def build_small_chatglm(tokenizer: Any) -> Any:
    """A random ChatGLM for the tokenizer of `build_sentencepiece`."""
    piece = tokenizer.sp_model.piece_to_id
    return build_chatglm(
        tokenizer.vocab_size,
        mask_token_id=piece("[MASK]"),
        gmask_token_id=piece("[gMASK]"),
        bos_token_id=piece("<sop>"),
        eos_token_id=piece("<eop>"),
    )
