"""Writes a full-size ChatGLM with random weights to disk, in the official sharded format.

    python benchmarks/random_model.py chatglm-6b OUTPUT --vocabulary ice_text.model
    python benchmarks/random_model.py chatglm2-6b OUTPUT --vocabulary tokenizer.model

What speed and memory depend on is there (sizes, names, shards, vocabulary); what quality depends on
is not. Weights are normal with standard deviation 0.02, half precision, seed 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

import tripletune  # noqa: F401 - registers the ChatGLM classes

OFFICIAL: dict[str, dict[str, Any]] = {
    "chatglm-6b": {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "vocab_size": 130528,
        "hidden_size": 4096,
        "inner_hidden_size": 16384,
        "num_layers": 28,
        "num_attention_heads": 32,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": 2048,
        "position_encoding_2d": True,
        "bos_token_id": 130004,
        "eos_token_id": 130005,
        "mask_token_id": 130000,
        "gmask_token_id": 130001,
        "pad_token_id": 3,
        "torch_dtype": "float16",
        "use_cache": True,
    },
    "chatglm2-6b": {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "ffn_hidden_size": 13696,
        "hidden_size": 4096,
        "kv_channels": 128,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": 32,
        "num_layers": 28,
        "original_rope": True,
        "padded_vocab_size": 65024,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": 32768,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float16",
        "use_cache": True,
    },
}
TOKENIZER_CONFIG = {
    "name_or_path": "",
    "remove_space": False,
    "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer",
}
SHARD_BYTES = 2 * 10**9


def write_model(family: str, folder: Path, vocabulary: Path | None, *, num_layers: int) -> None:
    """Writes config.json, `pytorch_model-*.bin` with their index, and the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**OFFICIAL[family], "num_layers": num_layers}
    (folder / "config.json").write_text(json.dumps(fields, indent=2), encoding="utf-8")
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, meta in model.state_dict().items():
        tensor = torch.empty(meta.shape, dtype=torch.float16, device=device)
        if name.endswith("layernorm.weight") or (tensor.dim() == 1 and name.endswith(".weight")):
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, 0.02, generator=generator)
        if size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        size += tensor.nbytes
        shards[-1][name] = tensor.cpu()
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        filename = f"pytorch_model-{number:05d}-of-{len(shards):05d}.bin"
        torch.save(shard, folder / filename)
        weight_map |= dict.fromkeys(shard, filename)
    total = sum(t.nbytes for shard in shards for t in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    if vocabulary is not None:
        shutil.copy(vocabulary, folder / vocabulary.name)
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG), "utf-8")


def main() -> None:
    """Writes the model and says how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=OFFICIAL)
    parser.add_argument("output", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--num_layers", type=int, default=28)
    args = parser.parse_args()
    started = time.perf_counter()
    write_model(args.family, args.output, args.vocabulary, num_layers=args.num_layers)
    size = sum(p.stat().st_size for p in args.output.iterdir()) / 1e9
    print(f"{args.output}: {size:.1f} GB in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
