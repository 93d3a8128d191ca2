"""Model files from where they are published: Hugging Face, a mirror of it, or ModelScope.

Everything is fetched before anything is loaded. So a name that does not exist, a hub that cannot be
reached and a download that is not whole are each one message, within seconds; and none of a
repository's own code is ever fetched.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from tripletune.errors import ConfigError, MissingPackageError, ModelError

__all__ = ["REMEDIES", "fetch_model"]

logger = logging.getLogger(__name__)

REMEDIES = (
    "what helps: set a mirror (export HF_ENDPOINT=https://hf-mirror.com), or clone it "
    "(git lfs clone https://huggingface.co/{name}) and pass the folder as --model_name, or try "
    "the small model that comes with TripleTune (--model_name embedded)"
)
SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
# In the order in which `transformers` looks for them.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
ANSWER_SECONDS = 10.0
# The official models have other names on ModelScope.
MODELSCOPE_IDS = {
    "THUDM/chatglm-6b": "ZhipuAI/ChatGLM-6B",
    "THUDM/chatglm2-6b": "ZhipuAI/chatglm2-6b",
    "THUDM/chatglm3-6b": "ZhipuAI/chatglm3-6b",
}


def fetch_model(name: str, *, revision: str | None = None, weights: bool) -> Path:
    """The local folder of a published model, downloaded where it is not there yet.

    `TRIPLETUNE_HUB=modelscope` chooses ModelScope; else `HF_ENDPOINT` names the hub. When that
    cannot be reached, an earlier download serves, and a warning says so.

    Args:
        name: Hub id.
        revision: Branch, tag or commit. None: the newest.
        weights: Whether the weights are needed too, not the configuration and vocabulary alone.

    Raises:
        ConfigError: `TRIPLETUNE_HUB` names neither.
        ModelError: there is no such model or revision, or it cannot be fetched.
        MissingPackageError: ModelScope is asked for and its package is not installed.
    """
    hub = os.environ.get("TRIPLETUNE_HUB") or "huggingface"
    if hub == "modelscope":
        return _fetch_from_modelscope(name, revision)
    if hub != "huggingface":
        raise ConfigError(
            f"TRIPLETUNE_HUB: {hub!r} is unknown; accepted are 'huggingface' and 'modelscope'"
        )
    return _fetch_from_hugging_face(name, revision, weights)


def _fetch_from_hugging_face(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    published, reason = _list_files(name, revision)

    def fetch(names: list[str]) -> Path:
        try:
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=names,
                ignore_patterns=["*/*"],
                local_files_only=published is None,
            )
        except LocalEntryNotFoundError as error:
            first = reason or str(error).split("\n")[0]
            raise _cannot_load(
                name,
                f"{_endpoint()} cannot be reached ({first}) and it was not downloaded whole before",
            ) from error
        except OSError as error:
            first = str(error).strip().split("\n")[0]
            raise _cannot_load(
                name, f"the download failed: {first}; start again, it goes on where it ended"
            ) from error
        return Path(folder)

    folder = fetch(list(SMALL_FILES))
    if published is None and reason:
        logger.warning("无法连接 %s (%s)，使用以前下载的 %s", _endpoint(), reason, folder)
    if weights:
        names = published or [path.name for path in folder.iterdir()]
        chosen = _choose_weights(folder, names)
        if chosen:
            fetch(chosen)
    return folder


def _list_files(name: str, revision: str | None) -> tuple[list[str] | None, str]:
    """Names of the published files; or None, and why the hub cannot be asked."""
    from huggingface_hub import HfApi, errors, get_session

    # httpx, or its successor in newer releases.
    http: Any = importlib.import_module(type(get_session()).__module__.split(".")[0])
    try:
        info = HfApi().model_info(name, revision=revision, timeout=ANSWER_SECONDS)
    except errors.OfflineModeIsEnabled:
        return None, "HF_HUB_OFFLINE"
    except errors.HFValidationError as error:
        raise ModelError(
            f"model: {name!r} is neither a folder here nor a hub id such as 'THUDM/chatglm-6b'"
        ) from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"model: {name!r} asks for consent to its licence; give it at {_endpoint()}/{name} and "
            "log in (hf auth login), or pass a local folder as --model_name"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"revision: {revision!r} is no branch, tag or commit of {name!r}; leave --revision out "
            "for the newest"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise _cannot_load(
            name,
            f"{_endpoint()} has no public model of that name; check the spelling, or log in for a "
            "private one (hf auth login)",
        ) from error
    except (errors.HfHubHTTPError, http.HTTPError) as error:
        return None, str(error).strip().split("\n")[0] or type(error).__name__
    return [file.rfilename for file in info.siblings or []], ""


def _choose_weights(folder: Path, names: list[str]) -> list[str]:
    """The weight files that will be loaded, of all that are published; empty when there are none.

    Args:
        folder: Has the index files, where there are any.
        names: Of all files.
    """
    for single in WEIGHT_FILES:
        if single in names:
            return [single]
        index = f"{single}.index.json"
        if index in names:
            try:
                weight_map = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
                return sorted({str(part) for part in weight_map.values()})
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return []
    return []


def _cannot_load(name: str, reason: str) -> ModelError:
    return ModelError(f"model: {name!r} cannot be loaded: {reason}\n{REMEDIES.format(name=name)}")


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _fetch_from_modelscope(name: str, revision: str | None) -> Path:
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise MissingPackageError(
            "TRIPLETUNE_HUB=modelscope needs the package modelscope: pip install modelscope"
        ) from None
    there = MODELSCOPE_IDS.get(name, name)
    try:
        return Path(snapshot_download(there, revision=revision))
    except Exception as error:
        # Its errors have no base class in common.
        first = str(error).strip().split("\n")[0]
        raise ModelError(
            f"model: {there!r} cannot be fetched from ModelScope: {first}; check the id, or unset "
            "TRIPLETUNE_HUB, or pass a local folder as --model_name"
        ) from error
