"""A Qwen2 network of two small layers as a GGUF file, with a byte-level vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEADS, GROUPS, INNER, NUM_LAYERS = 64, 4, 2, 64, 2
NUM_SPECIAL = 3


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(rest)) for byte in range(256)]


def write_tiny_gguf(path: Path) -> Path:
    """Writes the file, with random weights from a fixed seed."""
    from gguf import GGUFWriter

    random = np.random.default_rng(0)
    writer = GGUFWriter(path, "qwen2")
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    tokens = [*byte_letters(), "<|endoftext|>", "<|im_start|>", "<|im_end|>", "ab", "ba"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] * NUM_SPECIAL + [1, 1])
    # Two of them: transformers 5.10 takes a list of one for its only element.
    writer.add_token_merges(["a b", "b a"])
    writer.add_eos_token_id(256)
    writer.add_pad_token_id(256)

    def add(name: str, *shape: int) -> None:
        values = random.normal(scale=0.1, size=shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(name, values.astype(np.float32))

    add("token_embd.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    for number in range(NUM_LAYERS):
        block, group_width = f"blk.{number}.", WIDTH // HEADS * GROUPS
        add(f"{block}attn_norm.weight", WIDTH)
        add(f"{block}ffn_norm.weight", WIDTH)
        for name, size in (("q", WIDTH), ("k", group_width), ("v", group_width)):
            add(f"{block}attn_{name}.weight", size, WIDTH)
            add(f"{block}attn_{name}.bias", size)
        add(f"{block}attn_output.weight", WIDTH, WIDTH)
        for name in ("gate", "up"):
            add(f"{block}ffn_{name}.weight", INNER, WIDTH)
        add(f"{block}ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
