"""A trained adapter folder with its base model, schema and memory plan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tripletune.data.relation_schema import RelationSchema
from tripletune.errors import AdapterError, OutputError
from tripletune.extraction.windows import choose_window

__all__ = [
    "SCHEMA_FILE",
    "SETTINGS_FILE",
    "LoadedAdapter",
    "ReadingSettings",
    "load_adapter",
    "load_reading_settings",
    "save_reading_settings",
]

SCHEMA_FILE = "schema.json"
SETTINGS_FILE = "extraction.json"
_SHARE_FOR_WEIGHTS = 0.7


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """How a model was trained to read, as `extraction.json` has it.

    Attributes:
        window_chars: Longest text to read at once, in characters; None: not known.
        window_sentences: The same in sentences.
        relations_per_prompt: How many relations each prompt lists; None: prompts list none.
        bidirectional_prompt: Whether the tokens of a prompt see each other in a causal network.
    """

    window_chars: int | None = None
    window_sentences: int | None = None
    relations_per_prompt: int | None = None
    bidirectional_prompt: bool = False


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """What a folder holds.

    Attributes:
        model: The base model with the adapter, merged into it unless it is quantised.
        tokenizer: The base model's tokenizer.
        schema: The relations of the training data, when they were saved.
        reading: How the model is to read, as far as it was saved.
    """

    model: Any
    tokenizer: Any
    schema: RelationSchema | None
    reading: ReadingSettings


def save_reading_settings(
    adapter_dir: str | Path,
    texts: Iterable[str],
    *,
    relations_per_prompt: int | None = None,
    bidirectional_prompt: bool = False,
) -> ReadingSettings:
    """Writes to `extraction.json` how the model reads a text, and returns it.

    Args:
        adapter_dir: The adapter's folder.
        texts: Those of the training data; their lengths decide how long a text is read at once.
        relations_per_prompt: As in training.
        bidirectional_prompt: As in training.

    Raises:
        OutputError: the file cannot be written.
    """
    settings = ReadingSettings(*choose_window(texts), relations_per_prompt, bidirectional_prompt)
    path = Path(adapter_dir) / SETTINGS_FILE
    try:
        path.write_text(json.dumps(asdict(settings)) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return settings


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
    from tripletune.models.adapter_files import attach_adapter, check_adapter_folder
    from tripletune.models.loading import load_model_and_tokenizer

    folder = Path(adapter_dir)
    config = _read_json(folder / "adapter_config.json")
    name = base_model or config.get("base_model_name_or_path")
    if not name:
        raise AdapterError(
            f"{folder / 'adapter_config.json'}: base_model_name_or_path is {name!r}; name the base "
            "model (--base_model)"
        )
    revision = None if base_model else config.get("revision")
    schema = None
    if (folder / SCHEMA_FILE).is_file():
        schema = RelationSchema.from_record(_read_json(folder / SCHEMA_FILE))
    reading = load_reading_settings(folder)
    check_adapter_folder(folder)
    if quantize is None:
        quantize = _needs_quantisation(name, revision, device)
    model, tokenizer = load_model_and_tokenizer(
        name, quantize=quantize, device=device, dtype=dtype, revision=revision
    )
    try:
        model = attach_adapter(model, folder)
    except AdapterError as error:
        raise AdapterError(
            f"adapter: folder {str(folder)!r} does not fit {name!r}: {error}; name the model it "
            "was trained on (--base_model)"
        ) from error
    if not quantize:
        model = model.merge_and_unload()
    elif model.device.type == "cuda":
        from tripletune.models.nf4_products import expand_for_many_tokens

        expand_for_many_tokens(model)
    return LoadedAdapter(model.eval(), tokenizer, schema, reading)


def load_reading_settings(adapter_dir: str | Path) -> ReadingSettings:
    """What `save_reading_settings` wrote; nothing known where there is no file.

    Raises:
        AdapterError: the file is damaged.
    """
    path = Path(adapter_dir) / SETTINGS_FILE
    if not path.is_file():
        return ReadingSettings()
    record = _read_json(path)
    found = {}
    for name in ("window_chars", "window_sentences", "relations_per_prompt"):
        value = record.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise AdapterError(
                f"{path}: {name} {value!r} is not a number of at least 1; mend it or train again"
            )
        found[name] = value
    both_ways = record.get("bidirectional_prompt", False)
    if type(both_ways) is not bool:
        raise AdapterError(
            f"{path}: bidirectional_prompt {both_ways!r} is neither true nor false; mend it or "
            "train again"
        )
    return ReadingSettings(**found, bidirectional_prompt=both_ways)


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


def _needs_quantisation(name: str, revision: str | None, device: Any) -> bool:
    """Whether the GPU's free memory does not hold the weights in 16 bits with room to work."""
    import torch

    from tripletune.models.gpu_memory import find_free_bytes
    from tripletune.models.loading import build_empty_model, find_device, resolve_model_path

    if not torch.cuda.is_available() or find_device(device).type == "cpu":
        return False
    if resolve_model_path(name).endswith(".gguf"):
        return False
    model = build_empty_model(name, revision=revision)
    num_bytes = 2 * sum(parameter.numel() for parameter in model.parameters())
    return bool(num_bytes > _SHARE_FOR_WEIGHTS * find_free_bytes(device))
