"""Whether a ChatGLM folder's weights are those that its configuration describes.

Weights of another size load halfway, or with random values in place of what is missing; here the
names and shapes are compared before anything is loaded, from the headers of the weight files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tripletune.errors import ModelError
from tripletune.models.checkpoint_files import (
    CHATGLM_FAMILIES,
    check_model_folder,
    describe_model_folder,
    read_safetensors_header,
)

__all__ = ["check_weight_shapes"]

_AGAIN = "download it again (HF_ENDPOINT=https://hf-mirror.com sets a mirror)"


def check_weight_shapes(path: str | Path) -> None:
    """Returns when a ChatGLM folder's tensors are those that its configuration asks for.

    Any other model is passed over. Reads the headers of the weight files.

    Raises:
        ModelError: a tensor is missing or has another shape; or as `check_model_folder`.
    """
    folder = Path(path)
    check_model_folder(folder)
    described = describe_model_folder(folder)
    if described.family not in CHATGLM_FAMILIES:
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = _expected_shapes(described.family, config)
    missing = set(expected)
    for name in described.weight_files:
        for tensor, shape in _read_shapes(folder / name).items():
            missing.discard(tensor)
            if tensor in expected and shape != expected[tensor]:
                raise ModelError(
                    f"{folder / name}: {tensor} has shape {shape}, but config.json describes "
                    f"{expected[tensor]}; weights and config.json belong to different models: "
                    "download both again from one place"
                )
    if missing:
        raise ModelError(
            f"{folder}: no weight file holds {', '.join(sorted(missing)[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}; the checkpoint is "
            f"incomplete: {_AGAIN}"
        )


def _expected_shapes(family: str, config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of the network's parameters; what is shared counts once."""
    import torch

    model: Any
    with torch.device("meta"):
        if family == "ChatGLM-6B":
            from tripletune.models.chatglm import ChatGLMForConditionalGeneration
            from tripletune.models.configuration_chatglm import ChatGLMConfig

            model = ChatGLMForConditionalGeneration(ChatGLMConfig(**config))
        else:
            from tripletune.models.chatglm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration

            model = ChatGLM2ForConditionalGeneration(ChatGLM2Config(**config))
    shapes = {name: list(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    if model.config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def _read_shapes(path: Path) -> dict[str, list[int]]:
    if path.suffix == ".safetensors":
        header = read_safetensors_header(path)
        return {name: list(tensor["shape"]) for name, tensor in header.items()}
    import pickle

    import torch

    try:
        tensors = torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError(_explain_unreadable(path, error)) from error
    if not isinstance(tensors, dict):
        raise ModelError(f"{path}: holds a {type(tensors).__name__}, not named tensors; {_AGAIN}")
    return {str(name): list(getattr(t, "shape", ())) for name, t in tensors.items()}


def _explain_unreadable(path: Path, error: Exception) -> str:
    # torch's own text runs over several lines and advises to run what the file holds.
    reason = str(error).strip()
    found = re.search(r"GLOBAL (\S+)", reason)
    if found is not None:
        return (
            f"{path}: cannot be read as weights: it names {found[1]}, which is code to run and no "
            "tensor; do not use this file, take the model from its original source"
        )
    if not reason or "Weights only load failed" in reason or isinstance(error, UnicodeError):
        reason = "what it holds is damaged"
    return f"{path}: cannot be read as weights ({reason.splitlines()[0]}); {_AGAIN}"
