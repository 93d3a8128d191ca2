from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tripletune.errors import MissingPackageError, ModelError
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loading import (
    default_device,
    default_dtype,
    find_position_scheme,
    load_model,
    load_model_and_tokenizer,
    load_tokenizer,
    resolve_model_path,
)
from tripletune.models.tokenization_chatglm import ChatGLMTokenizer

REMEDIES = ["HF_ENDPOINT=https://hf-mirror.com", "git lfs clone", "--model_name embedded"]


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_resolve_model_path_knows_the_embedded_model():
    folder = Path(resolve_model_path("embedded"))
    assert (folder / "ice_text.model").is_file()


def test_resolve_model_path_takes_a_local_folder(tiny_model_dir, monkeypatch):
    assert resolve_model_path(str(tiny_model_dir)) == str(tiny_model_dir)
    monkeypatch.chdir(tiny_model_dir.parent)
    assert resolve_model_path(tiny_model_dir.name) == tiny_model_dir.name


def test_resolve_model_path_takes_a_clone_named_as_on_the_hub(
    tiny_model_dir, tmp_path, monkeypatch
):
    (tmp_path / "THUDM").mkdir()
    (tmp_path / "THUDM" / "chatglm-6b").symlink_to(tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    assert resolve_model_path("THUDM/chatglm-6b") == str(Path("THUDM/chatglm-6b"))


def test_resolve_model_path_leaves_a_hub_id_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIPLETUNE_HUB", raising=False)
    assert resolve_model_path("THUDM/chatglm-6b") == "THUDM/chatglm-6b"


def test_resolve_model_path_wants_a_configuration(tmp_path):
    with pytest.raises(ModelError, match=r"model: folder '.*' has no config\.json; give"):
        resolve_model_path(str(tmp_path))


@pytest.mark.parametrize("name", ["./none", "/none", "~/none-of-this", "a/b/c"])
def test_resolve_model_path_says_that_a_path_leads_nowhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=rf"model: '{name}' is no folder here; accepted are"):
        resolve_model_path(name)


def test_resolve_model_path_names_the_package_for_modelscope(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPLETUNE_HUB", "modelscope")
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingPackageError, match="pip install modelscope"):
        resolve_model_path("THUDM/chatglm-6b")


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_model(name, quantize=False)])
def test_loading_says_what_helps_when_nothing_can_be_fetched(load, no_network):
    with pytest.raises(ModelError, match="'nobody/no-such-chatglm' cannot be loaded") as error_info:
        load("nobody/no-such-chatglm")
    assert [remedy for remedy in REMEDIES if remedy not in str(error_info.value)] == []


def test_load_model_and_tokenizer_gives_our_classes_ready_to_use(tiny_model_dir):
    model, tokenizer = load_model_and_tokenizer(str(tiny_model_dir), quantize=False, device="cpu")
    assert type(model) is ChatGLMForConditionalGeneration
    assert type(tokenizer) is ChatGLMTokenizer
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_load_model_takes_a_dtype(tiny_model_dir):
    model = load_model(str(tiny_model_dir), quantize=False, device="cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_load_model_quantises_linear_layers_to_nf4(tiny_model_dir):
    model = load_model(str(tiny_model_dir), quantize=True, device="cpu")
    quantised = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert len(quantised) == 2 * 4
    assert {layer.weight.quant_type for layer in quantised} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in quantised)
    assert type(model.get_output_embeddings()).__name__ != "Linear4bit"


def test_load_model_says_that_weights_are_missing(tiny_model_dir, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder), quantize=False, device="cpu")


def test_default_device_is_the_gpu_of_the_process(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == torch.device("cuda", 3)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert default_device() == torch.device("cpu")


def test_default_dtype_is_what_the_device_computes_best(monkeypatch):
    assert default_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert default_dtype(torch.device("cuda")) == torch.bfloat16
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert default_dtype(torch.device("cuda")) == torch.float16


def test_find_position_scheme_tells_the_first_generation_apart():
    assert find_position_scheme(SimpleNamespace(config=ChatGLMConfig())) == "two_rows"
    assert find_position_scheme(SimpleNamespace(config=object())) == "one_row"
