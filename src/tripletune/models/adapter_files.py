"""Whether an adapter folder, which may be a stranger's, is safe and whole, before it is loaded.

No layer is made and nothing in the folder is run: pickles are read as tensors and nothing else.
Refused are links, archives that unpack to more than they hold, headers without measure, patterns
that take exponential time, and weights that are no floating-point numbers.
"""

from __future__ import annotations

import json
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

from tripletune.errors import AdapterError, ModelError
from tripletune.models.checkpoint_files import read_safetensors_header

__all__ = ["attach_adapter", "check_adapter_folder"]

_MAX_CONFIG_BYTES = 4 << 20
_MAX_HEADER_BYTES = 64 << 20
_MAX_RANK = 65_536
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
_QUANTIFIER = re.compile(r"[*+?]|\{\d")
_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def check_adapter_folder(folder: Path) -> None:
    """Looks at the files that loading an adapter reads.

    Raises:
        AdapterError: one is a link, is damaged, or would do more than hold weights; the message
            names it, what it has and what is accepted.
    """
    for name in _FILES:
        path = folder / name
        if path.is_symlink() or (path.exists() and not stat.S_ISREG(path.lstat().st_mode)):
            raise AdapterError(f"{path}: is a link or device; copy the file itself into the folder")
    _check_config(folder / _FILES[0])
    if (folder / _FILES[1]).exists():
        _check_safetensors(folder / _FILES[1])
    elif (folder / _FILES[2]).exists():
        _check_pickle(folder / _FILES[2])
    else:
        raise AdapterError(
            f"adapter: {str(folder)!r} holds neither {_FILES[1]} nor {_FILES[2]}; give the output "
            "folder of a training run"
        )


def attach_adapter(model: Any, folder: Path) -> Any:
    """The model with an adapter's layers added, and their weights loaded from the folder.

    Raises:
        AdapterError: the adapter was made for another network; the message says why and no more.
    """
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            # Of layers that the file lacks, which is an error here.
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise AdapterError(str(error).strip().split("\n")[0]) from error
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    missing = sorted(set(wanted) - _list_tensors(folder))
    if missing:
        raise AdapterError(
            f"it holds no weights for {len(missing)} of the {len(wanted)} tensors that this "
            f"network's layers need, {missing[0]} among them"
        )
    return adapted


def _list_tensors(folder: Path) -> set[str]:
    if (folder / _FILES[1]).exists():
        return set(read_safetensors_header(folder / _FILES[1]))
    return set(_load_tensors(folder / _FILES[2], "train again"))


def _check_config(path: Path) -> None:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise AdapterError(f"{path}: is above {_MAX_CONFIG_BYTES} bytes; no adapter needs that")
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(
            f"{path}: no readable configuration ({error}); give the output folder of a training run"
        ) from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path}: holds {type(config).__name__}, not an object; train again")
    for name in ("r", "lora_alpha"):
        value = config.get(name, 1)
        if type(value) not in (int, float) or not 0 < value <= _MAX_RANK:
            raise AdapterError(f"{path}: {name} is {value!r}; accepted are 1 to {_MAX_RANK}")
    for name in ("target_modules", "exclude_modules"):
        _check_module_names(path, name, config.get(name))


def _check_module_names(path: Path, name: str, value: Any) -> None:
    """A list of names, or a pattern that cannot take exponential time to match."""
    if value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value)):
        return
    if isinstance(value, str) and len(value) <= 1000 and len(_QUANTIFIER.findall(value)) <= 2:
        return
    shown = repr(value)
    raise AdapterError(
        f"{path}: {name} is {shown[:200]}; accepted are a list of names, or a pattern with at most "
        "two repetitions"
    )


def _check_safetensors(path: Path) -> None:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise AdapterError(
                f"{path}: a header of {length:,} bytes; accepted are {_MAX_HEADER_BYTES:,}"
            )
        header = read_safetensors_header(path)
    except (ModelError, OSError, RecursionError) as error:
        raise AdapterError(str(error)) from error
    for name, tensor in header.items():
        if tensor.get("dtype") not in _FLOATS:
            raise AdapterError(
                f"{path}: tensor {name[:200]!r} is of dtype {tensor.get('dtype')!r}; accepted are "
                f"{', '.join(sorted(_FLOATS))}"
            )


def _check_pickle(path: Path) -> None:
    again = "train again, or ask for adapter_model.safetensors"
    _check_archive(path, again)
    content = _load_tensors(path, again)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and getattr(value, "is_floating_point", bool)()
        for name, value in content.items()
    ):
        raise AdapterError(f"{path}: is no table of floating-point tensors; {again}")


def _check_archive(path: Path, again: str) -> None:
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise AdapterError(f"{path}: is no weight file ({error}); {again}") from error
    if unpacked > path.stat().st_size:
        raise AdapterError(
            f"{path}: {path.stat().st_size:,} bytes that unpack to {unpacked:,}, which weights "
            f"never do; {again}"
        )


def _load_tensors(path: Path, again: str) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # About pickle protocols that training never writes.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # The restricted unpickler of torch lets through whatever damaged bytes make its stack do.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise AdapterError(
            f"{path}: holds more or less than weights ({reason}); {again}"
        ) from error
