from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.models.fake_hub import serve_hub
from tripletune.errors import ConfigError, MissingPackageError, ModelError
from tripletune.models.hub import fetch_model
from tripletune.models.loading import load_model, load_tokenizer

MODEL = "THUDM/chatglm-6b"
TRAP = b"raise SystemExit('remote code ran')\n"


@pytest.fixture
def hub(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub with the tiny model, and a second branch that names itself in its configuration."""
    files = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()}
    files |= {"modeling_chatglm.py": TRAP, "pytorch_model.bin": b"other", "onnx/config.json": b""}
    config = files["config.json"].replace(b"{", b'{"branch": "old",', 1)
    with serve_hub(MODEL, {"main": files, "old": files | {"config.json": config}}) as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        yield server


def use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    monkeypatch.chdir(cache.parent)
    monkeypatch.delenv("TRIPLETUNE_HUB", raising=False)
    constants = "huggingface_hub.constants."
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants + "ENDPOINT", url)
    monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants + "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SMALL = ["config.json", "generation_config.json", "ice_text.model", "tokenizer_config.json"]


def test_configuration_and_vocabulary_are_fetched_without_weights_or_code(hub):
    assert names_in(fetch_model(MODEL, weights=False)) == SMALL


def test_one_form_of_the_weights_is_fetched(hub):
    assert names_in(fetch_model(MODEL, weights=True)) == sorted([*SMALL, "model.safetensors"])


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_parts_named_in_the_index_are_fetched(tmp_path, monkeypatch, kind):
    stem, _, suffix = kind.partition(".")
    parts = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    index = f'{{"weight_map": {{"a": "{parts[0]}", "b": "{parts[1]}"}}}}'.encode()
    files = {f"{kind}.index.json": index, **dict.fromkeys([*parts, f"other.{suffix}"], b"x")}
    with serve_hub(MODEL, {"main": files}) as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        assert names_in(fetch_model(MODEL, weights=True)) == sorted([*parts, f"{kind}.index.json"])


def test_revision_is_honoured(hub):
    tokens = {None: "", "old": '"branch": "old"'}
    for revision, word in tokens.items():
        folder = fetch_model(MODEL, revision=revision, weights=False)
        assert word in (folder / "config.json").read_text(encoding="utf-8")
    assert load_model(MODEL, quantize=False, device="cpu", revision="old").config.branch == "old"


def test_unknown_revision_is_named(hub):
    with pytest.raises(ModelError, match=r"revision: 'gone' is no branch, tag or commit of 'THUDM"):
        fetch_model(MODEL, revision="gone", weights=False)


def test_unknown_model_is_named_at_once(hub):
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"'nobody/none' cannot be loaded: .* no public model"):
        load_tokenizer("nobody/none")
    assert time.monotonic() - started < 5


def test_name_that_no_hub_can_have(hub):
    with pytest.raises(ModelError, match=r"'no such' is neither a folder here nor a hub id"):
        fetch_model("no such", weights=False)


def test_hub_out_of_reach_is_named_within_seconds(tmp_path, monkeypatch):
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:9 cannot be reached") as error:
        load_tokenizer(MODEL)
    assert time.monotonic() - started < 5
    assert "HF_ENDPOINT=https://hf-mirror.com" in str(error.value)


def test_earlier_download_serves_without_the_hub(hub, monkeypatch, tmp_path, caplog):
    folder = fetch_model(MODEL, weights=True)
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert fetch_model(MODEL, weights=True) == folder
    assert "无法连接 http://127.0.0.1:9" in caplog.text


def test_earlier_download_serves_offline(hub, monkeypatch, caplog):
    folder = fetch_model(MODEL, weights=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.paths.clear()
    assert fetch_model(MODEL, weights=True) == folder
    assert hub.paths == []


def test_damaged_download_is_one_message(tmp_path, tiny_model_dir, monkeypatch):
    files = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()}
    files["model.safetensors"] = files["model.safetensors"][:-100]
    with serve_hub(MODEL, {"main": files}) as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        with pytest.raises(ModelError, match=r"model\.safetensors: is cut off"):
            load_model(MODEL, quantize=False, device="cpu")


def test_endpoint_of_the_environment_is_honoured(hub, tmp_path):
    """As a user sets it, before anything is imported."""
    code = (
        f"from tripletune.models.loading import load_tokenizer as t; print(t({MODEL!r}).vocab_file)"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "other")}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith(str(tmp_path / "other")), done.stderr
    assert f"/api/models/{MODEL}" in hub.paths


class FakeModelScope(ModuleType):
    """The package `modelscope`, as far as it is used."""

    def __init__(self, folder: Path) -> None:
        super().__init__("modelscope")
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []

    def snapshot_download(self, model_id: str, revision: str | None = None) -> str:
        self.asked.append((model_id, revision))
        if model_id == "nobody/none":
            raise RuntimeError("404 Not Found\nmore")
        return str(self.folder)


@pytest.fixture
def modelscope(tiny_model_dir, tmp_path, monkeypatch) -> FakeModelScope:
    fake = FakeModelScope(tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPLETUNE_HUB", "modelscope")
    monkeypatch.setitem(sys.modules, "modelscope", fake)
    return fake


@pytest.mark.parametrize(
    ("name", "there"), [(MODEL, "ZhipuAI/ChatGLM-6B"), ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B")]
)
def test_modelscope_is_asked_under_its_own_names(modelscope, tiny_model_dir, name, there):
    assert fetch_model(name, revision="v1.0", weights=True) == tiny_model_dir
    assert modelscope.asked == [(there, "v1.0")]


def test_models_load_from_modelscope(modelscope):
    assert type(load_tokenizer(MODEL)).__name__ == "ChatGLMTokenizer"
    loaded = load_model(MODEL, quantize=False, device="cpu", revision="v1.0")
    assert type(loaded).__name__ == "ChatGLMForConditionalGeneration"
    assert modelscope.asked == [("ZhipuAI/ChatGLM-6B", None), ("ZhipuAI/ChatGLM-6B", "v1.0")]


def test_unknown_model_of_modelscope_is_named(modelscope):
    message = r"'nobody/none' cannot be fetched from ModelScope: 404 Not Found; check the id"
    with pytest.raises(ModelError, match=message):
        fetch_model("nobody/none", weights=False)


def test_missing_package_of_modelscope_is_named(modelscope, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingPackageError, match="pip install modelscope"):
        load_tokenizer(MODEL)


def test_unknown_hub_is_refused(monkeypatch):
    monkeypatch.setenv("TRIPLETUNE_HUB", "modelscop")
    message = "TRIPLETUNE_HUB: 'modelscop' is unknown; accepted are 'huggingface' and 'modelscope'"
    with pytest.raises(ConfigError, match=message):
        fetch_model(MODEL, weights=False)
