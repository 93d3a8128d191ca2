from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tripletune.errors import AdapterError
from tripletune.models.adapter_files import check_adapter_folder

CONFIG = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 32,
    "target_modules": ["query_key_value"],
    "base_model_name_or_path": "base",
}
NUM_MUTATIONS = 1000


@pytest.fixture
def adapter(tmp_path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file({"a.lora_A.weight": torch.ones(2, 3)}, folder / "adapter_model.safetensors")
    return folder


def use_pickle(adapter: Path, content: Any) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(content, adapter / "adapter_model.bin")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


def test_sound_adapter_is_accepted(adapter):
    check_adapter_folder(adapter)
    use_pickle(adapter, {"a.lora_A.weight": torch.ones(2, 3)})
    check_adapter_folder(adapter)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickle_with_code_is_refused_and_not_run(adapter, tmp_path, protocol):
    use_pickle(adapter, {})
    torch.save(
        {"w": Touch(tmp_path / "ran")}, adapter / "adapter_model.bin", pickle_protocol=protocol
    )
    with pytest.raises(AdapterError, match=r"adapter_model\.bin: holds more or less than weights"):
        check_adapter_folder(adapter)
    assert not (tmp_path / "ran").exists()


def test_pickle_is_not_looked_at_beside_safetensors(adapter, tmp_path):
    torch.save({"w": Touch(tmp_path / "ran")}, adapter / "adapter_model.bin")
    check_adapter_folder(adapter)
    assert not (tmp_path / "ran").exists()


def test_archive_that_unpacks_to_more_is_refused(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with zipfile.ZipFile(
        adapter / "adapter_model.bin", "w", compression=zipfile.ZIP_DEFLATED
    ) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    with pytest.raises(AdapterError, match=r"bytes that unpack to 50,000,000"):
        check_adapter_folder(adapter)


@pytest.mark.parametrize(
    "content",
    [[torch.ones(2)], {"w": 1}, {1: torch.ones(2)}, {"w": torch.ones(2, dtype=torch.int8)}],
)
def test_pickle_of_other_things_is_refused(adapter, content):
    use_pickle(adapter, content)
    with pytest.raises(AdapterError, match="no table of floating-point tensors"):
        check_adapter_folder(adapter)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 not an archive", b"\x80\x02."])
def test_pickle_that_is_cut_off_is_refused(adapter, content):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(content)
    with pytest.raises(AdapterError, match=r"adapter_model\.bin: (is no weight file|holds)"):
        check_adapter_folder(adapter)


def test_huge_header_is_refused_before_it_is_read(adapter):
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(AdapterError, match=r"a header of 4,611,686,018,427,387,904 bytes"):
        check_adapter_folder(adapter)


def test_weights_that_are_no_floats_are_refused(adapter):
    save_file({"w": torch.ones(2, dtype=torch.int64)}, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"tensor 'w' is of dtype 'I64'; accepted are BF16"):
        check_adapter_folder(adapter)


def test_links_are_refused(adapter, tmp_path):
    secret = tmp_path / "secret"
    (adapter / "adapter_model.safetensors").rename(secret)
    (adapter / "adapter_model.safetensors").symlink_to(secret)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors: is a link"):
        check_adapter_folder(adapter)


def test_folder_without_weights_is_refused(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="holds neither"):
        check_adapter_folder(adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 10**9}, "r is 1000000000; accepted are 1 to 65536"),
        ({"r": -1}, "r is -1"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": "x"}, "lora_alpha is 'x'"),
        ({"target_modules": "(a+)+(b*)*$"}, "a pattern with at most two repetitions"),
        ({"target_modules": [1]}, "a list of names"),
    ],
)
def test_configuration_that_does_more_than_configure_is_refused(adapter, change, message):
    (adapter / "adapter_config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(AdapterError, match=message):
        check_adapter_folder(adapter)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "\x00", "{" + " " * (4 << 20)])
def test_configuration_that_is_none_is_refused(adapter, content):
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(AdapterError, match=r"adapter_config\.json: "):
        check_adapter_folder(adapter)


def accepted_or_named(adapter: Path) -> None:
    """The folder is accepted, or refused with an error that names a file in it."""
    message = ""
    try:
        check_adapter_folder(adapter)
    except AdapterError as error:
        message = str(error)
    assert not message or str(adapter) in message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@settings(
    max_examples=NUM_MUTATIONS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_change_is_accepted_or_refused_with_our_error(adapter, name, data):
    path = adapter / name
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 12)))
    content[start:end] = data.draw(st.binary(max_size=12))
    path.write_bytes(bytes(content))
    accepted_or_named(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file({"a.lora_A.weight": torch.ones(2, 3)}, adapter / "adapter_model.safetensors")


@settings(
    max_examples=NUM_MUTATIONS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_change_of_a_pickle_is_accepted_or_refused_with_our_error(adapter, data):
    path = adapter / "adapter_model.bin"
    if (adapter / "adapter_model.safetensors").exists():
        use_pickle(adapter, {"a.lora_A.weight": torch.ones(2, 3)})
        (adapter / "whole").write_bytes(path.read_bytes())
    content = bytearray((adapter / "whole").read_bytes())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 12)))
    content[start:end] = data.draw(st.binary(max_size=12))
    path.write_bytes(bytes(content))
    accepted_or_named(adapter)
