"""Whether a model folder holds what its files say it holds, without loading any weights.

A clone without Git LFS, a broken download and a copy that stopped half-way all look like a model
folder. Loading one fails late and far from the cause; here each is one message with the file and
what to do.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tripletune.errors import ModelError

__all__ = [
    "CHATGLM_FAMILIES",
    "ModelFolder",
    "check_gguf_file",
    "check_model_folder",
    "check_vocabulary",
    "describe_model_folder",
    "describe_prequantised",
    "find_full_precision_id",
    "is_lfs_pointer",
    "read_safetensors_header",
]

_LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/v1"
_MAX_POINTER_BYTES = 1024
_MAX_HEADER_BYTES = 100_000_000
_AGAIN = "download it again (HF_ENDPOINT=https://hf-mirror.com sets a mirror)"
# In the order in which `transformers` looks for them.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_VOCABULARIES = {
    "ChatGLM-6B": ("ice_text.model",),
    "ChatGLM2-6B": ("tokenizer.model",),
    "ChatGLM3-6B": ("tokenizer.model",),
}
CHATGLM_FAMILIES = tuple(_VOCABULARIES)
_OTHER_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a model folder holds, and what is wrong with it.

    Attributes:
        path: The folder.
        family: `ChatGLM-6B`, `ChatGLM2-6B`, `ChatGLM3-6B`, any other `model_type`, or None.
        dtype: Of the weights, as the configuration says, or None.
        weight_files: Names of the files that hold weights.
        num_bytes: Size of those files together.
        vocabulary_file: Name of the vocabulary file, or None.
        problems: What must be mended before the model can be used, one message each.
    """

    path: Path
    family: str | None
    dtype: str | None
    weight_files: tuple[str, ...]
    num_bytes: int
    vocabulary_file: str | None
    problems: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing or damaged."""
        return not self.problems


def check_model_folder(path: str | Path) -> None:
    """Returns when configuration and weight files are there and whole.

    Only headers are read, so this takes no longer for a large model. The vocabulary is the
    tokenizer's business and is not looked for.

    Raises:
        ModelError: what is wrong first, the file it is in and what to do.
    """
    folder = Path(path)
    config, problems = _check_config(folder)
    if not problems:
        _, problems = _check_weights(folder, config)
    if problems:
        more = f" (and {len(problems) - 1} more of this kind)" if len(problems) > 1 else ""
        raise ModelError(problems[0] + more)


def describe_model_folder(path: str | Path) -> ModelFolder:
    """What the folder holds, with every problem found in it, the vocabulary included."""
    folder = Path(path)
    config, problems = _check_config(folder)
    weight_files: tuple[str, ...] = ()
    if folder.is_dir():
        weight_files, weight_problems = _check_weights(folder, config)
        problems += weight_problems
    family = _find_family(config)
    vocabulary = None
    if family is not None:
        vocabulary, vocabulary_problems = _check_vocabulary(folder, family)
        problems += vocabulary_problems
    dtype = config.get("dtype") or config.get("torch_dtype")
    return ModelFolder(
        path=folder,
        family=family,
        dtype=None if dtype is None else str(dtype),
        weight_files=weight_files,
        num_bytes=sum((folder / name).stat().st_size for name in weight_files),
        vocabulary_file=vocabulary,
        problems=tuple(problems),
    )


def check_vocabulary(path: str | Path) -> None:
    """Returns when the vocabulary file, if the folder has one, is whole and fits config.json.

    Raises:
        ModelError: it is a Git LFS pointer, no SentencePiece model, or of another model.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        return
    family = _find_family(_read_json(folder / "config.json")[0])
    names: tuple[str, ...] = _OTHER_VOCABULARIES
    if family in _VOCABULARIES:
        # The vocabulary of another generation would be taken by the tokenizer, but does not fit.
        names = tuple(name for family_names in _VOCABULARIES.values() for name in family_names)
    if any((folder / name).is_file() for name in names):
        problems = _check_vocabulary(folder, str(family))[1]
        if problems:
            raise ModelError(problems[0])


def check_gguf_file(path: str | Path) -> None:
    """Returns when a file begins as a GGUF file does.

    Raises:
        ModelError: it is a Git LFS pointer, or something else.
    """
    problems = _check_files(Path(path).parent, [Path(path).name])
    if problems:
        raise ModelError(problems[0])


def describe_prequantised(config: dict[str, Any], path: str | Path) -> str:
    """Why the INT4 or INT8 checkpoint that a config.json at `path` describes cannot be used."""
    bits = config["quantization_bit"]
    return (
        f"{path}: quantization_bit {bits!r}: INT{bits} weights of the official quantiser, "
        f"which cannot be fine-tuned; use {find_full_precision_id(config)!r}, which is "
        "quantised to 4 bits while loading"
    )


def find_full_precision_id(config: dict[str, Any]) -> str:
    """The hub id of the unquantised model that an INT4 or INT8 checkpoint was made from."""
    family = _find_family(config)
    return {"ChatGLM2-6B": "THUDM/chatglm2-6b", "ChatGLM3-6B": "THUDM/chatglm3-6b"}.get(
        str(family), "THUDM/chatglm-6b"
    )


def is_lfs_pointer(path: Path) -> bool:
    """Whether Git left a pointer here because Git LFS did not fetch the file itself."""
    if path.stat().st_size > _MAX_POINTER_BYTES:
        return False
    return path.read_bytes().startswith(_LFS_SIGNATURE)


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: dtype, shape and byte offsets of every tensor.

    Raises:
        ModelError: the file is cut off or is no safetensors file.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or length > _MAX_HEADER_BYTES or 8 + length > num_bytes:
            raise ModelError(
                f"{path}: {num_bytes} bytes that are no whole safetensors header; {_AGAIN}"
            )
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            ends = [int(tensor["data_offsets"][1]) for tensor in header.values()]
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise ModelError(f"{path}: is no safetensors file; {_AGAIN}") from error
    needed = 8 + length + max(ends, default=0)
    if num_bytes < needed:
        raise ModelError(
            f"{path}: is cut off, {num_bytes:,} of {needed:,} bytes; {_AGAIN} or copy it again"
        )
    return header


def _check_config(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The fields of config.json (empty when it cannot be read), and what is wrong with it."""
    if not folder.is_dir():
        return {}, [f"{folder}: is no folder; give the folder that holds config.json"]
    path = folder / "config.json"
    if not path.is_file():
        if list(folder.glob("*.gguf")):
            return {}, []
        return {}, [f"{path}: does not exist; {_AGAIN}"]
    config, problem = _read_json(path)
    if problem is not None:
        return {}, [problem]
    if config.get("quantization_bit"):
        return config, [describe_prequantised(config, path)]
    return config, []


def _read_json(path: Path) -> tuple[dict[str, Any], str | None]:
    if is_lfs_pointer(path):
        return {}, _pointer_problem(path)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, f"{path}: is no JSON ({error}); {_AGAIN}"
    if not isinstance(fields, dict):
        return {}, f"{path}: holds a {type(fields).__name__}, not an object; {_AGAIN}"
    return fields, None


def _find_family(config: dict[str, Any]) -> str | None:
    if config.get("model_type") != "chatglm":
        return str(config["model_type"]) if config.get("model_type") else None
    if "inner_hidden_size" in config:
        return "ChatGLM-6B"
    named_third = "chatglm3" in str(config.get("_name_or_path", "")).lower()
    if config.get("rotary_in_fp32", named_third or config.get("seq_length") == 8192):
        return "ChatGLM3-6B"
    return "ChatGLM2-6B"


def _check_weights(folder: Path, config: dict[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Names of the weight files, and what is wrong with them."""
    for single in _WEIGHT_FILES:
        if (folder / single).is_file():
            return (single,), _check_files(folder, [single])
        index = folder / f"{single}.index.json"
        if index.is_file():
            return _check_shards(folder, index)
    ggufs = sorted(path.name for path in folder.glob("*.gguf"))
    if ggufs:
        return tuple(ggufs), _check_files(folder, ggufs)
    shards = sorted(p.name for p in folder.glob("*-of-*") if p.suffix in (".safetensors", ".bin"))
    if shards:
        base = "model.safetensors" if shards[0].endswith(".safetensors") else "pytorch_model.bin"
        return tuple(shards), [
            f"{folder / base}.index.json: does not exist, though {shards[0]} does; without the "
            f"index the {len(shards)} parts cannot be loaded: {_AGAIN}"
        ]
    kind = config.get("model_type") or "model"
    return (), [
        f"{folder}: holds no weights of the {kind} ({', '.join(_WEIGHT_FILES)} or their parts); "
        f"{_AGAIN}"
    ]


def _check_shards(folder: Path, index: Path) -> tuple[tuple[str, ...], list[str]]:
    fields, problem = _read_json(index)
    if problem is not None:
        return (), [problem]
    weight_map = fields.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        return (), [f"{index}: has no weight_map; {_AGAIN}"]
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not _is_inside(name):
            return (), [
                f"{index}: names the weight file {name!r}, which lies outside the folder; do not "
                "use this model, or take the index from its original source"
            ]
    present = [name for name in names if (folder / name).is_file()]
    missing = [name for name in names if name not in present]
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        return tuple(present), [
            f"{folder}: {len(missing)} of {len(names)} weight files named in {index.name} are "
            f"missing: {listed}; download them into the folder"
        ]
    problems = _check_files(folder, names)
    total = (fields.get("metadata") or {}).get("total_size")
    num_bytes = sum((folder / name).stat().st_size for name in names)
    if not problems and isinstance(total, int) and num_bytes < total:
        problems = [
            f"{folder}: the weight files have {num_bytes:,} bytes, {index.name} says {total:,}; "
            f"one of them is cut off: {_AGAIN}"
        ]
    return tuple(names), problems


def _is_inside(name: str) -> bool:
    """Whether a name from an index file stays in the folder on every operating system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return bool(name) and not absolute and ".." not in windows.parts


def _check_files(folder: Path, names: list[str]) -> list[str]:
    pointers = [name for name in names if is_lfs_pointer(folder / name)]
    if pointers:
        others = f" (so are {len(pointers) - 1} other weight files)" if len(pointers) > 1 else ""
        return [_pointer_problem(folder / pointers[0]) + others]
    problems = []
    for name in names:
        problem = _find_damage(folder / name)
        if problem is not None:
            problems.append(problem)
    return problems


def _pointer_problem(path: Path) -> str:
    fields = dict(
        line.split(" ", 1) for line in path.read_text("utf-8").splitlines() if " " in line
    )
    size = f" of {int(fields['size']):,} bytes" if fields.get("size", "").isdigit() else ""
    return (
        f"{path}: is a Git LFS pointer, not the file{size} itself; run 'git lfs install' and "
        f"'git lfs pull' in {path.parent}"
    )


def _find_damage(path: Path) -> str | None:
    try:
        if path.suffix == ".safetensors":
            read_safetensors_header(path)
        elif path.suffix == ".gguf":
            with path.open("rb") as file:
                if file.read(4) != b"GGUF":
                    return f"{path}: is no GGUF file; {_AGAIN}"
        else:
            return _find_damage_in_bin(path)
    except ModelError as error:
        return str(error)
    return None


def _find_damage_in_bin(path: Path) -> str | None:
    """What is wrong with a file that `torch.save` wrote: a zip archive, or a pickle before 1.6."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"\x80"):
        return None
    if not start.startswith(b"PK"):
        return f"{path}: is no PyTorch weight file (it begins with {start!r}); {_AGAIN}"
    try:
        with zipfile.ZipFile(path) as archive:
            archive.infolist()
    except zipfile.BadZipFile:
        size = path.stat().st_size
        return f"{path}: is cut off after {size:,} bytes (the archive has no end); {_AGAIN}"
    return None


def _check_vocabulary(folder: Path, family: str) -> tuple[str | None, list[str]]:
    names = _VOCABULARIES.get(family, _OTHER_VOCABULARIES)
    found = next((name for name in names if (folder / name).is_file()), None)
    if found is None:
        return None, [f"{folder}: holds no vocabulary ({' or '.join(names)}); {_AGAIN}"]
    if is_lfs_pointer(folder / found):
        return found, [_pointer_problem(folder / found)]
    if family not in _VOCABULARIES:
        return found, []
    problem = _find_vocabulary_mismatch(folder, found)
    return found, [] if problem is None else [problem]


def _find_vocabulary_mismatch(folder: Path, name: str) -> str | None:
    """What the vocabulary file and config.json disagree about, if anything."""
    import sentencepiece

    path = folder / name
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.load(str(path))
    except (OSError, RuntimeError):
        return f"{path}: is no SentencePiece model; {_AGAIN}"
    config, _ = _read_json(folder / "config.json")
    num_pieces = model.get_piece_size()
    size = config.get("padded_vocab_size") or config.get("vocab_size")
    if isinstance(size, int) and num_pieces > size:
        return (
            f"{path}: has {num_pieces} pieces, the model's embeddings only {size}; they belong to "
            "different models: download both again from one place"
        )
    start = config.get("bos_token_id")
    if name == "ice_text.model" and start is not None and model.piece_to_id("<sop>") != start:
        return (
            f"{path}: has <sop> at {model.piece_to_id('<sop>')}, config.json says bos_token_id "
            f"{start}; they belong to different models: download both again from one place"
        )
    return None
