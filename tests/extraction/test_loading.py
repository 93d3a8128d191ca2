from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tripletune.errors import AdapterError, ModelError, OutputError
from tripletune.extraction.loading import ReadingSettings, load_adapter, save_reading_settings


def test_load_adapter_refuses_a_folder_without_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"has no readable adapter_config\.json"):
        load_adapter(tmp_path)


def test_load_adapter_refuses_an_adapter_without_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": None}), encoding="utf-8"
    )
    with pytest.raises(AdapterError, match=r"base_model_name_or_path is None; name the base"):
        load_adapter(tmp_path)


def test_load_adapter_refuses_a_damaged_schema(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "embedded"}', encoding="utf-8"
    )
    (tmp_path / "schema.json").write_text("[", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"has no readable schema\.json"):
        load_adapter(tmp_path)


def write_adapter_config(folder: Path, **fields: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def test_load_adapter_names_the_damaged_file_of_the_base_model(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"cut")
    folder = write_adapter_config(
        tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base")
    )
    monkeypatch.setattr("tripletune.models.adapter_files.check_adapter_folder", lambda folder: None)
    with pytest.raises(ModelError, match=r"base/model\.safetensors: 3 bytes that are no whole"):
        load_adapter(folder, device="cpu")


@pytest.mark.parametrize(("named", "revision"), [(None, "v1.1.0"), ("other", None)])
def test_load_adapter_takes_the_revision_that_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, revision: str | None
) -> None:
    folder = write_adapter_config(
        tmp_path, base_model_name_or_path="THUDM/chatglm-6b", revision="v1.1.0"
    )
    asked = []

    def refuse(name: str, **settings: object) -> None:
        asked.append((name, settings["revision"]))
        raise ModelError("enough")

    monkeypatch.setattr("tripletune.models.adapter_files.check_adapter_folder", lambda folder: None)
    monkeypatch.setattr("tripletune.models.loading.load_model_and_tokenizer", refuse)
    with pytest.raises(ModelError, match="enough"):
        load_adapter(folder, device="cpu", base_model=named)
    assert asked == [(named or "THUDM/chatglm-6b", revision)]


def test_save_reading_settings_writes_what_training_texts_suggest(tmp_path: Path) -> None:
    assert save_reading_settings(tmp_path, ["甲" * 70, "乙"]) == ReadingSettings(70, 1)
    written = json.loads((tmp_path / "extraction.json").read_text(encoding="utf-8"))
    assert written == {
        "window_chars": 70,
        "window_sentences": 1,
        "relations_per_prompt": None,
        "bidirectional_prompt": False,
    }


def test_save_reading_settings_reports_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/extraction\.json: cannot be written"):
        save_reading_settings(tmp_path / "none", [])


@pytest.mark.parametrize("name", ["window_chars", "window_sentences", "relations_per_prompt"])
@pytest.mark.parametrize("value", ["9", 0, True, [1]])
def test_load_adapter_refuses_a_setting_that_is_no_number(
    tmp_path: Path, name: str, value: object
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "embedded"}', encoding="utf-8"
    )
    (tmp_path / "extraction.json").write_text(json.dumps({name: value}), encoding="utf-8")
    with pytest.raises(AdapterError, match=re.escape(f"{name} {value!r} is not a number")):
        load_adapter(tmp_path)


def test_load_adapter_refuses_a_switch_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "embedded"}', encoding="utf-8"
    )
    (tmp_path / "extraction.json").write_text('{"bidirectional_prompt": 1}', encoding="utf-8")
    with pytest.raises(AdapterError, match="bidirectional_prompt 1 is neither true nor false"):
        load_adapter(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_load_adapter_refuses_an_adapter_of_another_network(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    settings = LoraConfig(r=2, target_modules=["query_key_value"])
    get_peft_model(base, settings).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    renamed = {name.replace("layers", "blocks"): t for name, t in load_file(path).items()}
    save_file(renamed, path, {"format": "pt"})
    with pytest.raises(
        AdapterError, match=r"does not fit .*no weights for 4 of .*\(--base_model\)"
    ):
        load_adapter(tmp_path, base_model=str(tiny_model_dir), quantize=False, device="cpu")
