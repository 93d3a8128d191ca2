"""A trained adapter folder with its base model, schema and memory plan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletune.data.relation_schema import RelationSchema
from tripletune.errors import AdapterError, OutputError
from tripletune.extraction.windows import choose_window_chars

__all__ = ["SCHEMA_FILE", "SETTINGS_FILE", "LoadedAdapter", "load_adapter", "save_window_chars"]

SCHEMA_FILE = "schema.json"
SETTINGS_FILE = "extraction.json"
_SHARE_FOR_WEIGHTS = 0.7


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """What a folder holds.

    Attributes:
        model: The base model with the adapter, merged into it unless it is quantised.
        tokenizer: The base model's tokenizer.
        schema: The relations of the training data, when they were saved.
        window_chars: Longest text to read at once, when it was saved.
    """

    model: Any
    tokenizer: Any
    schema: RelationSchema | None
    window_chars: int | None


def save_window_chars(adapter_dir: str | Path, texts: Iterable[str]) -> int:
    """Writes to `extraction.json` how long a text the model reads at once, and returns it.

    Args:
        adapter_dir: The adapter's folder.
        texts: Those of the training data; their lengths decide.

    Raises:
        OutputError: the file cannot be written.
    """
    window_chars = choose_window_chars([len(text) for text in texts])
    path = Path(adapter_dir) / SETTINGS_FILE
    try:
        path.write_text(json.dumps({"window_chars": window_chars}) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return window_chars


def load_adapter(
    adapter_dir: str | Path,
    *,
    base_model: str | None = None,
    quantize: bool | None = None,
    device: Any = None,
    dtype: Any = None,
) -> LoadedAdapter:
    """The model of an adapter folder; arguments as `Extractor.from_pretrained`.

    Raises:
        AdapterError: the folder holds no adapter, or a file in it is damaged.
        ModelError: the base model cannot be loaded.
    """
    from tripletune.models.adapter_files import check_adapter_folder
    from tripletune.models.loading import load_model_and_tokenizer

    folder = Path(adapter_dir)
    config = _read_json(folder / "adapter_config.json")
    name = base_model or config.get("base_model_name_or_path")
    if not name:
        raise AdapterError(
            f"{folder / 'adapter_config.json'}: base_model_name_or_path is {name!r}; name the base "
            "model (--base_model)"
        )
    schema = None
    if (folder / SCHEMA_FILE).is_file():
        schema = RelationSchema.from_record(_read_json(folder / SCHEMA_FILE))
    window_chars = None
    if (folder / SETTINGS_FILE).is_file():
        window_chars = _read_window_chars(folder / SETTINGS_FILE)
    check_adapter_folder(folder)
    if quantize is None:
        quantize = _needs_quantisation(name, device)
    model, tokenizer = load_model_and_tokenizer(name, quantize=quantize, device=device, dtype=dtype)
    from peft import PeftModel

    try:
        model = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise AdapterError(
            f"adapter: folder {str(folder)!r} does not fit {name!r}: {error}"
        ) from error
    if not quantize:
        model = model.merge_and_unload()
    elif model.device.type == "cuda":
        from tripletune.models.nf4_products import expand_for_many_tokens

        expand_for_many_tokens(model)
    return LoadedAdapter(model.eval(), tokenizer, schema, window_chars)


def _read_window_chars(path: Path) -> int:
    value = _read_json(path).get("window_chars")
    if type(value) is not int or value < 1:
        raise AdapterError(
            f"{path}: window_chars {value!r} is not a number of characters, at least 1; mend it or "
            "delete the file"
        )
    return value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(
            f"adapter: folder {str(path.parent)!r} has no readable {path.name} ({error}); give the "
            "output folder of a training run"
        ) from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path}: holds {content!r}, not an object; train again")
    return content


def _needs_quantisation(name: str, device: Any) -> bool:
    """Whether the GPU's free memory does not hold the weights in 16 bits with room to work."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tripletune.models.loading import resolve_model_path

    if not torch.cuda.is_available() or (device is not None and torch.device(device).type == "cpu"):
        return False
    path = resolve_model_path(name)
    if path.endswith(".gguf"):
        return False
    config = AutoConfig.from_pretrained(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    num_bytes = 2 * sum(parameter.numel() for parameter in model.parameters())
    free, _ = torch.cuda.mem_get_info(device)
    return bool(num_bytes > _SHARE_FOR_WEIGHTS * free)
