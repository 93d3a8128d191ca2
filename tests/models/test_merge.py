from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tripletune.errors import (
    AdapterError,
    ConfigError,
    ModelError,
    OutputError,
    ResourceError,
)
from tripletune.models import merge
from tripletune.models.chatglm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration
from tripletune.models.merge import merge_adapter, plan_merge, read_adapter_config
from tripletune.models.tokenization_chatglm2 import ChatGLM2Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
# Embeddings and head, two layers (attention with bias, output, MLP, two norms), final norm.
NUM_PARAMETERS = 2 * 65024 * 8 + 2 * (16 * 8 + 16 + 8 * 8 + 16 * 8 + 8 * 8 + 2 * 8) + 8


def write_adapter(model, folder: Path, base: Path) -> None:
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query_key_value"]))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, shared_dir) -> SimpleNamespace:
    """A tiny base model with the real vocabulary, and an adapter for it."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = ChatGLM2Config(
        num_layers=2,
        hidden_size=8,
        ffn_hidden_size=8,
        kv_channels=4,
        num_attention_heads=2,
        multi_query_group_num=1,
        initializer_range=0.3,
    )
    model = ChatGLM2ForConditionalGeneration(config)
    model.save_pretrained(root / "base")
    tokenizer = ChatGLM2Tokenizer.from_pretrained(shared_dir / "tokenizers/chatglm2-6b")
    tokenizer.save_pretrained(root / "base")
    write_adapter(model, root / "adapter", root / "base")
    return SimpleNamespace(base=root / "base", adapter=root / "adapter")


def test_plan_tells_what_will_be_needed(folders, tmp_path, monkeypatch):
    asked = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(Path(path)) or usage)
    plan = plan_merge(folders.adapter, tmp_path / "deep" / "merged")
    assert plan.base == str(folders.base)
    assert plan.dtype == "float32"
    assert plan.num_bytes == 4 * NUM_PARAMETERS
    assert asked == [tmp_path]
    assert plan.num_free_bytes == usage.free
    assert plan.fits
    assert plan_merge(folders.adapter, tmp_path, dtype="float16").num_bytes == 2 * NUM_PARAMETERS


def test_merged_folder_is_plain_and_equals_base_with_adapter(folders, tmp_path):
    from peft import PeftModel

    plan = plan_merge(folders.adapter, tmp_path / "merged")
    check = merge_adapter(plan, check=True)
    assert check.passed
    assert (check.num_sentences, check.num_positions) == (10, 80)
    assert check.num_same_choice == 80
    written = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"} <= (
        written
    )
    assert not [name for name in written if "adapter" in name]
    base = AutoModelForCausalLM.from_pretrained(folders.base)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folders.base).encode("你好")])
    plain = base(ids).logits
    expected = PeftModel.from_pretrained(base, folders.adapter)(ids).logits
    actual = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=1e-4 * float(expected.detach().abs().max())
    )
    assert float((plain - expected).detach().abs().max()) > 0.02


def test_adapter_with_a_tokenizer_beside_it_is_merged(folders, tmp_path):
    """As a training leaves it: the tokenizer's files, and no config.json."""
    adapter = shutil.copytree(folders.adapter, tmp_path / "adapter")
    ChatGLM2Tokenizer.from_pretrained(folders.base).save_pretrained(adapter)
    assert not (adapter / "config.json").exists()
    merge_adapter(plan_merge(adapter, tmp_path / "merged"))
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.encode("你好") == AutoTokenizer.from_pretrained(folders.base).encode("你好")


def test_plan_takes_the_revision_that_was_trained_on(folders, tmp_path):
    adapter = shutil.copytree(folders.adapter, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    fields = json.loads(path.read_text(encoding="utf-8")) | {"revision": "v1.1.0"}
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert plan_merge(adapter, tmp_path / "merged").revision == "v1.1.0"
    other = plan_merge(adapter, tmp_path / "merged", base=str(folders.base))
    assert other.revision is None


def test_merging_without_a_check_returns_nothing(folders, tmp_path):
    assert merge_adapter(plan_merge(folders.adapter, tmp_path / "merged")) is None


def test_merged_half_precision_stays_in_its_bound(folders, tmp_path):
    plan = plan_merge(folders.adapter, tmp_path / "merged", dtype="float16")
    check = merge_adapter(plan, check=True)
    assert 0 < check.max_difference <= check.bound == 2e-2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.float16


def test_check_finds_another_model(folders, tmp_path, monkeypatch):
    def write_base(model, tokenizer, output):
        shutil.copytree(folders.base, output)

    monkeypatch.setattr(merge, "_write", write_base)
    check = merge_adapter(plan_merge(folders.adapter, tmp_path / "merged"), check=True)
    assert not check.passed


def test_full_disk_is_said_before_anything_is_loaded(folders, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: usage)
    plan = plan_merge(folders.adapter, tmp_path / "merged")
    with pytest.raises(ResourceError, match=r"needs 0\.0 GiB, but only 0\.0 GiB are free"):
        merge_adapter(plan)
    assert not (tmp_path / "merged").exists()


def test_files_in_the_way_are_kept(folders, tmp_path):
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty; choose another folder or pass --over"):
        plan_merge(folders.adapter, tmp_path)
    with pytest.raises(OutputError, match="holds something other than a model"):
        plan_merge(folders.adapter, tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").is_file()


def test_earlier_model_is_replaced_on_request(folders, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "old.bin").write_text("x", encoding="utf-8")
    merge_adapter(plan_merge(folders.adapter, tmp_path, overwrite=True))
    assert not (tmp_path / "old.bin").exists()
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("which", ["base", "adapter"])
def test_output_over_a_source_is_refused(folders, which):
    with pytest.raises(OutputError, match="is read from"):
        plan_merge(folders.adapter, getattr(folders, which), overwrite=True)


def test_failed_write_leaves_nothing(folders, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(ChatGLM2ForConditionalGeneration, "save_pretrained", fail)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        merge_adapter(plan_merge(folders.adapter, tmp_path / "merged"))
    assert list(tmp_path.iterdir()) == []


def test_quantised_base_is_refused(folders, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(folders.base, base)
    config = json.loads((base / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="holds quantised weights, into which an adapter"):
        plan_merge(folders.adapter, tmp_path / "merged", base=str(base))


def test_gguf_base_is_refused(folders, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="holds quantised GGUF weights"):
        plan_merge(folders.adapter, tmp_path / "out", base=str(tmp_path / "model.gguf"))


def test_base_of_other_sizes_is_refused(folders, tmp_path):
    config = ChatGLM2Config.from_pretrained(folders.base, hidden_size=16, num_layers=1)
    ChatGLM2ForConditionalGeneration(config).save_pretrained(tmp_path / "other")
    shutil.copy(folders.base / "tokenizer.model", tmp_path / "other")
    shutil.copy(folders.base / "tokenizer_config.json", tmp_path / "other")
    plan = plan_merge(folders.adapter, tmp_path / "merged", base=str(tmp_path / "other"))
    with pytest.raises(AdapterError, match=r"does not fit the base model .*\(--base\)"):
        merge_adapter(plan)


def test_base_with_layers_of_other_names_is_refused(folders, tiny_model_dir, tmp_path):
    plan = plan_merge(folders.adapter, tmp_path / "merged", base=str(tiny_model_dir))
    message = r"does not fit the base model .*no weights for 4 of .*lora_A\.weight.*\(--base\)"
    with pytest.raises(AdapterError, match=message):
        merge_adapter(plan)
    assert not (tmp_path / "merged").exists()


def test_base_without_configuration_is_refused(folders, tmp_path):
    with pytest.raises(ModelError, match="no-such-base"):
        plan_merge(folders.adapter, tmp_path / "out", base=str(tmp_path / "no-such-base"))


def test_unknown_dtype_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="dtype: 'int8' is unknown; accepted are float32"):
        plan_merge(folders.adapter, tmp_path / "out", dtype="int8")


def copy_adapter(folders, target: Path, **fields) -> Path:
    shutil.copytree(folders.adapter, target)
    config = json.loads((target / "adapter_config.json").read_text("utf-8"))
    (target / "adapter_config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    return target


def test_adapter_that_names_no_base_is_refused(folders, tmp_path):
    adapter = copy_adapter(folders, tmp_path / "adapter", base_model_name_or_path=None)
    with pytest.raises(ConfigError, match=r"names no base model; give one \(--base\)"):
        plan_merge(adapter, tmp_path / "out")


def test_adapter_with_broken_numbers_is_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    adapter = copy_adapter(folders, tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    broken = {name: tensor * float("nan") for name, tensor in load_file(path).items()}
    save_file(broken, path)
    with pytest.raises(AdapterError, match="cannot be merged: NaNs"):
        merge_adapter(plan_merge(adapter, tmp_path / "merged"))


def test_adapter_of_another_kind_is_refused(folders, tmp_path):
    adapter = copy_adapter(folders, tmp_path / "adapter", peft_type="PROMPT_TUNING")
    with pytest.raises(AdapterError, match="peft_type 'PROMPT_TUNING' cannot be merged"):
        read_adapter_config(adapter)


def test_folder_that_is_no_adapter_is_refused(folders, tmp_path):
    with pytest.raises(AdapterError, match=r"holds no adapter_config\.json"):
        read_adapter_config(folders.base)
    (tmp_path / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"adapter_config\.json: is no adapter configuration"):
        read_adapter_config(tmp_path)


def test_adapter_without_weights_is_refused(folders, tmp_path):
    adapter = copy_adapter(folders, tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    with pytest.raises(AdapterError, match="is a Git LFS pointer"):
        read_adapter_config(adapter)
    weights.unlink()
    with pytest.raises(AdapterError, match=r"neither adapter_model\.safetensors nor"):
        read_adapter_config(adapter)
