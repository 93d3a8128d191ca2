from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from tests.models.tiny_gguf import write_tiny_gguf
from tripletune.errors import ConfigError, MissingPackageError, ModelError
from tripletune.models import dispatch
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loading import (
    default_device,
    default_dtype,
    find_device,
    find_dtype,
    find_position_scheme,
    load_config,
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


@pytest.fixture
def broken(tiny_model_dir, tmp_path) -> Path:
    """A copy of the tiny model's folder, to be damaged."""
    return shutil.copytree(tiny_model_dir, tmp_path / "broken")


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def leave_a_pointer(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    (folder / "model.safetensors").write_text(pointer, encoding="utf-8")


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def lose_a_part(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    parts = {first: names[:3], second: names[3:]}
    weight_map = {name: part for part, inside in parts.items() for name in inside}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    save_file({name: tensors[name] for name in parts[first]}, folder / first, {"format": "pt"})
    remove_weights(folder)


def point_elsewhere(folder: Path) -> None:
    names = sorted(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def describe_another_size(folder: Path) -> None:
    change_config(folder, inner_hidden_size=256)


def describe_a_smaller_vocabulary(folder: Path) -> None:
    change_config(folder, vocab_size=100)
    tensors = load_file(folder / "model.safetensors")
    for name in ("lm_head.weight", "transformer.word_embeddings.weight"):
        if name in tensors:
            tensors[name] = tensors[name][:100].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def describe_int4_weights(folder: Path) -> None:
    change_config(folder, quantization_bit=4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_weights, r"broken: holds no weights of the chatglm"),
        (
            leave_a_pointer,
            r"model\.safetensors: is a Git LFS pointer, .* 12,345 bytes",
        ),
        (cut_off, r"model\.safetensors: is cut off, .* download it again"),
        (lose_a_part, r"1 of 2 weight files .* are missing: model-00002-of-00002\.safetensors"),
        (point_elsewhere, r"weight file '\.\./elsewhere\.safetensors', which lies outside"),
        (describe_another_size, r"dense_.* has shape \[.*128.*\], but config\.json .*256"),
        (describe_a_smaller_vocabulary, r"ice_text\.model: has \d+ pieces, .* only 100;"),
        (describe_int4_weights, r"quantization_bit 4: INT4 .* use 'THUDM/chatglm-6b'"),
    ],
)
@pytest.mark.parametrize("quantize", [False, True])
def test_damaged_folder_is_one_message(broken, damage, message, quantize):
    damage(broken)
    with pytest.raises(ModelError, match=message) as error:
        load_model(str(broken), quantize=quantize, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("quantize", [False, True])
def test_shapes_are_compared_once(tiny_model_dir, monkeypatch, quantize):
    folders: list[str] = []
    monkeypatch.setattr(dispatch, "check_weight_shapes", lambda path: folders.append(str(path)))
    load_model(str(tiny_model_dir), quantize=quantize, device="cpu")
    assert folders == [str(tiny_model_dir)]


def test_tokenizer_of_another_model_is_refused(broken):
    describe_a_smaller_vocabulary(broken)
    with pytest.raises(ModelError, match="belong to different models"):
        load_tokenizer(str(broken))


def test_tokenizer_alone_is_loaded_from_its_folder(tiny_model_dir, tmp_path):
    load_tokenizer(str(tiny_model_dir)).save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "config.json").exists()
    again = load_tokenizer(str(tmp_path / "adapter"))
    assert again.encode("你好") == load_tokenizer(str(tiny_model_dir)).encode("你好")


def test_load_config_gives_our_class(tiny_model_dir):
    assert type(load_config(str(tiny_model_dir))) is ChatGLMConfig


def test_gguf_file_needs_its_package(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("tripletune.models.loading.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'pip install "tripletune\[gguf\]"'):
        load_tokenizer(str(tmp_path / "model.gguf"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> Path:
    pytest.importorskip("gguf")
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_gguf_file_gives_network_and_tokenizer(gguf_file):
    model, tokenizer = load_model_and_tokenizer(str(gguf_file), quantize=False, device="cpu")
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert tokenizer.decode(tokenizer.encode("你好ab")) == "你好ab"
    assert tokenizer.pad_token_id == 256
    assert "quantization_config" not in model.config.to_dict()
    assert model(torch.tensor([tokenizer.encode("你好")])).logits.shape == (1, 6, 261)


def test_gguf_file_alone_in_a_folder_is_found(gguf_file):
    assert load_config(str(gguf_file.parent)).num_hidden_layers == 2


def test_gguf_configuration_is_read_once_until_the_file_changes(gguf_file, tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    shutil.copy(gguf_file, path)
    reads = []
    read = AutoConfig.from_pretrained
    monkeypatch.setattr(
        AutoConfig, "from_pretrained", lambda *args, **more: reads.append(1) or read(*args, **more)
    )
    load_config(str(path)).num_hidden_layers = 99  # of a copy
    load_model(str(path), quantize=False, device="cpu")
    assert load_config(str(path)).num_hidden_layers == 2
    assert len(reads) == 1
    os.utime(path, ns=(1, 1))
    load_config(str(path))
    assert len(reads) == 2


def test_gguf_weights_are_quantised_on_request(gguf_file):
    model = load_model(str(gguf_file), quantize=True, device="cpu")
    quantised = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert len(quantised) == 2 * 7


@pytest.mark.parametrize("kept", [300, 0.5])
@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_model(name, quantize=False)])
def test_gguf_file_that_is_cut_off_is_one_message(gguf_file, tmp_path, load, kept):
    content = gguf_file.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(ModelError, match=r"cut\.gguf' cannot be loaded: .* download it again"):
        load(str(path))


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_model(name, quantize=False)])
def test_file_that_is_no_gguf_is_one_message(tmp_path, load):
    (tmp_path / "model.gguf").write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"model\.gguf: is no GGUF file"):
        load(str(tmp_path / "model.gguf"))


def test_default_device_is_the_gpu_of_the_process(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == torch.device("cuda", 3)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert default_device() == torch.device("cpu")


def test_find_device_refuses_what_is_not_here(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device: 'cuda:2' is not here: PyTorch sees 2 GPUs"):
        find_device("cuda:2")
    with pytest.raises(ConfigError, match="device: 'gpu' is no name of a device"):
        find_device("gpu")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bf16", torch.bfloat16),
        ("float16", torch.float16),
        (torch.float32, torch.float32),
        (None, torch.float32),
    ],
)
def test_find_dtype_knows_long_and_short_names(name, expected):
    assert find_dtype(name, torch.device("cpu")) is expected


@pytest.mark.parametrize("name", ["bf17", "int8", "nn", torch.int8])
def test_find_dtype_refuses_what_nothing_is_computed_in(name):
    with pytest.raises(ConfigError, match="accepted are float32, float16 and bfloat16"):
        find_dtype(name, torch.device("cpu"))


def test_default_dtype_is_what_the_device_computes_best(monkeypatch):
    assert default_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert default_dtype(torch.device("cuda")) == torch.bfloat16
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert default_dtype(torch.device("cuda")) == torch.float16


def test_find_position_scheme_tells_the_first_generation_apart():
    assert find_position_scheme(SimpleNamespace(config=ChatGLMConfig())) == "two_rows"
    assert find_position_scheme(SimpleNamespace(config=object())) == "one_row"
