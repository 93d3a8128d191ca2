"""Models and tokenizers by name: a hub id, a local folder, or `embedded`."""

from __future__ import annotations

import copy
import functools
import os
import struct
from contextlib import nullcontext
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tripletune.config import EMBEDDED_MODEL
from tripletune.errors import ConfigError, MissingPackageError, ModelError
from tripletune.models.checkpoint_files import check_gguf_file, check_model_folder, check_vocabulary
from tripletune.models.gguf_header import forget_headers, headers_read_once
from tripletune.models.hub import REMEDIES, fetch_model
from tripletune.models.processors import use_own_processors

if TYPE_CHECKING:
    import torch

__all__ = [
    "build_empty_model",
    "find_device",
    "find_dtype",
    "find_position_scheme",
    "load_config",
    "load_model",
    "load_model_and_tokenizer",
    "load_tokenizer",
    "resolve_model_path",
]

_SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

# What transformers and the readers beneath it raise at files that they cannot make sense of.
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, struct.error)


def resolve_model_path(name: str) -> str:
    """The folder of the embedded model or a local clone, or the hub id as it is.

    Raises:
        ModelError: the name looks like a path and does not exist, or holds no config.json.
    """
    if name == EMBEDDED_MODEL:
        return str(resources.files("tripletune") / "assets" / "embedded")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not list(path.glob("*.gguf")):
            raise ModelError(
                f"model: folder {name!r} has no config.json; give the folder that holds "
                "config.json, the weights and the vocabulary"
            )
        return str(path)
    if path.is_file() and path.suffix == ".gguf":
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(
            f"model: {name!r} is no folder here; accepted are a local folder, a hub id such as "
            "'THUDM/chatglm-6b', or 'embedded'"
        )
    return name


def load_config(name: str, *, revision: str | None = None) -> Any:
    """The configuration of a model, of whichever class it is.

    Raises:
        ModelError: it cannot be found or read; the message has the remedies.
    """
    from transformers import AutoConfig

    folder, gguf = _open_model(name, revision, weights=False)
    try:
        if gguf:
            path = Path(folder) / gguf["gguf_file"]
            return copy.deepcopy(_read_gguf_config(path, path.stat().st_mtime_ns))
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except _UNREADABLE as error:
        raise _explain(name, error) from error


@functools.lru_cache(maxsize=1)
def _read_gguf_config(path: Path, changed: int) -> Any:
    """The configuration in a GGUF file, whose vocabulary takes seconds to read past."""
    from transformers import AutoConfig

    with headers_read_once():
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The tokenizer of a model, ours for a ChatGLM, without running remote code.

    Args:
        name: As `load_model`; or a folder that holds a tokenizer alone, as an adapter's does.
        revision: Of a hub id.

    Raises:
        ModelError: it cannot be found or read; the message has the remedies.
        MissingPackageError: a GGUF file is named and the package for it is not installed.
    """
    from transformers import AutoTokenizer

    alone = Path(name).expanduser()
    gguf: dict[str, str] = {}
    if (alone / "tokenizer_config.json").is_file() and not (alone / "config.json").is_file():
        folder = str(alone)
    else:
        folder, gguf = _open_model(name, revision, weights=False)
    check_vocabulary(folder)
    try:
        with headers_read_once() if gguf else nullcontext():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **gguf)
    except _UNREADABLE as error:
        raise _explain(name, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@use_own_processors()
def load_model(
    name: str,
    *,
    quantize: bool,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    quant_storage: torch.dtype | None = None,
) -> Any:
    """A causal model on one device, in evaluation mode.

    Args:
        name: Hub id, local folder, GGUF file or `embedded`.
        quantize: Whether linear layers are quantised to NF4 with double quantisation
            (QLoRA, arXiv 2305.14314, section 3).
        device: Where to put it. None: the process's GPU, or the CPU.
        dtype: Of what is not quantised, and of computation; by name, too (`bf16`, `bfloat16`).
            None: bf16 where the GPU has it, fp16 on older ones, fp32 on the CPU.
        revision: Of a hub id.
        attn_implementation: As `transformers`. None: its default.
        quant_storage: The dtype that packed weights lie in, a float one to be cut by FSDP. None:
            uint8.

    Raises:
        ConfigError: the device is not here, or the dtype is none to compute in.
        ModelError: it cannot be found, is damaged or of another size than its configuration
            says; the message names the file and what to do.
        MissingPackageError: a GGUF file is named and the package for it is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device = find_device(device)
    dtype = find_dtype(dtype, device)
    arguments: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    if attn_implementation is not None:
        arguments["attn_implementation"] = attn_implementation
    folder, gguf = _open_model(name, revision, weights=True)
    if gguf:
        arguments["config"] = load_config(name, revision=revision)
    else:
        # The shapes of a ChatGLM's weights are compared by its Auto class.
        check_model_folder(folder)
        check_vocabulary(folder)
    if quantize and not gguf:
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=quant_storage,
        )
    try:
        with headers_read_once() if gguf else nullcontext():
            model = AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, **arguments, **gguf
            )
    except _UNREADABLE as error:
        raise _explain(name, error) from error
    if gguf:
        forget_headers()
        # What is in memory are plain weights; the file's own quantisation is over.
        model.hf_quantizer = None
        model.is_quantized = False
        model.config.__dict__.pop("quantization_config", None)
    if quantize and gguf:
        from tripletune.models.quantization import quantize_linear_layers

        quantize_linear_layers(model, dtype=dtype, quant_storage=quant_storage or torch.uint8)
    return model.eval()


def build_empty_model(name: str, *, revision: str | None = None) -> Any:
    """The network of a model by its configuration, on the meta device, which holds no weights.

    Raises:
        ModelError: the configuration cannot be found or read; the message has the remedies.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(name, revision=revision)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError as error:
        raise _explain(name, error) from error


def load_model_and_tokenizer(
    name: str,
    *,
    quantize: bool,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
) -> tuple[Any, Any]:
    """`load_model` and `load_tokenizer` of one name."""
    tokenizer = load_tokenizer(name, revision=revision)
    model = load_model(name, quantize=quantize, device=device, dtype=dtype, revision=revision)
    return model, tokenizer


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of a name; None: `default_device`.

    Raises:
        ConfigError: there is none of this name here.
    """
    import torch

    if device is None:
        return default_device()
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ConfigError(
            f"device: {device!r} is no name of a device; give 'cuda', 'cuda:1' or 'cpu'"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {device!r} is not here: PyTorch sees {torch.cuda.device_count()} GPUs; give "
            "another, or 'cpu'"
        )
    return found


def find_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype of a name; None: `default_dtype` of the device.

    Raises:
        ConfigError: it is none to compute in.
    """
    import torch

    if dtype is None:
        return default_dtype(device)
    name = _SHORT_DTYPES.get(str(dtype), str(dtype)).removeprefix("torch.")
    accepted = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in accepted:
        raise ConfigError(f"dtype: {dtype!r}; accepted are float32, float16 and bfloat16")
    return accepted[name]


def default_device() -> torch.device:
    """The GPU that belongs to this process (`LOCAL_RANK`), or the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """The dtype to compute in on a device."""
    import torch

    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def find_position_scheme(model: Any) -> str:
    """`two_rows` for ChatGLM-6B, `one_row` for any other network."""
    from tripletune.models.configuration_chatglm import ChatGLMConfig

    return "two_rows" if isinstance(model.config, ChatGLMConfig) else "one_row"


def _open_model(name: str, revision: str | None, *, weights: bool) -> tuple[str, dict[str, str]]:
    """The folder of a model, fetched if need be, and the `gguf_file` argument when it is one."""
    path = Path(resolve_model_path(name))
    if not path.exists():
        path = fetch_model(name, revision=revision, weights=weights)
    if path.suffix != ".gguf":
        files = sorted(path.glob("*.gguf"))
        if not files or (path / "config.json").is_file():
            return str(path), {}
        path = files[0]
    check_gguf_file(path)
    if find_spec("gguf") is None:
        raise MissingPackageError(
            f'{path}: reading GGUF files needs the package gguf: pip install "tripletune[gguf]"'
        )
    return str(path.parent), {"gguf_file": path.name}


def _explain(name: str, error: Exception) -> ModelError:
    first = str(error).strip().split("\n")[0].rstrip(".")
    place = Path(name).expanduser()
    if place.exists():
        command = f"; 'tripletune doctor {place}' says what is missing" if place.is_dir() else ""
        return ModelError(
            f"model: {name!r} cannot be loaded: {first}; if a file is damaged or cut off, download "
            f"it again{command}"
        )
    return ModelError(f"model: {name!r} cannot be loaded: {first}\n{REMEDIES.format(name=name)}")
