from __future__ import annotations

import importlib
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from tripletune.cli import doctor as doctor_module
from tripletune.cli.doctor import (
    Finding,
    Level,
    doctor,
    examine_disk,
    examine_gpu,
    examine_imports,
    examine_model_folder,
    examine_packages,
    examine_quantisation,
    examine_settings,
    find_cached_models,
)


def install(monkeypatch, requires: list[str], versions: dict[str, str]) -> None:
    """Makes it look as if just these packages were required and installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": ">=3.10"})
    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    monkeypatch.setattr(metadata, "version", version)


def examine_one(monkeypatch, requirement: str, **versions: str) -> Finding:
    install(monkeypatch, [requirement], {"tripletune": "0.1.0"} | versions)
    *_, finding = examine_packages()
    return finding


def test_packages_of_this_installation_are_in_range():
    findings = examine_packages()
    assert {finding.subject for finding in findings} >= {"Python", "torch", "transformers", "peft"}
    assert [finding for finding in findings if finding.level is Level.WRONG] == []


def test_package_in_range(monkeypatch):
    finding = examine_one(monkeypatch, "torch>=2.9", torch="2.13.0+cpu")
    assert finding == Finding("torch", Level.OK, "2.13.0+cpu (需要 >=2.9)")


def test_package_out_of_range(monkeypatch):
    finding = examine_one(monkeypatch, "transformers<6,>=5.10", transformers="4.30.2")
    assert (finding.level, finding.state) == (Level.WRONG, "4.30.2，需要 <6,>=5.10")
    assert finding.remedy == "pip install 'transformers<6,>=5.10'"


def test_package_missing(monkeypatch):
    finding = examine_one(monkeypatch, "peft>=0.18")
    assert (finding.level, finding.state) == (Level.WRONG, "未安装 (需要 >=0.18)")


def test_optional_package_missing_is_only_noted(monkeypatch):
    finding = examine_one(monkeypatch, 'swanlab>=0.6; extra == "swanlab"')
    expected = Finding(
        "swanlab", Level.NOTE, "未安装 (可选: swanlab)", "pip install 'swanlab>=0.6'"
    )
    assert finding == expected


def test_packages_for_developers_are_passed_over(monkeypatch):
    finding = examine_one(monkeypatch, 'pytest>=9; extra == "dev"')
    assert finding.subject == "Python"


def test_unsupported_python(monkeypatch):
    install(monkeypatch, [], {"tripletune": "0.1.0"})
    monkeypatch.setattr(doctor_module.platform, "python_version", lambda: "3.9.18")
    *_, finding = examine_packages()
    assert (finding.level, finding.state) == (Level.WRONG, "3.9.18 (需要 >=3.10)")


def test_package_itself_not_installed(monkeypatch):
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    (finding,) = examine_packages()
    assert (finding.subject, finding.level) == ("tripletune", Level.WRONG)


def break_import(monkeypatch, name: str, error: Exception) -> None:
    def fake_import(wanted: str):
        if wanted == name:
            raise error
        return importlib.import_module(wanted)

    monkeypatch.setattr(doctor_module, "import_module", fake_import)


def test_package_that_cannot_be_imported(monkeypatch):
    error = OSError("libcudart.so.12: cannot open shared object file\nmore")
    break_import(monkeypatch, "bitsandbytes", error)
    (finding,) = examine_imports()
    assert finding == Finding(
        "bitsandbytes",
        Level.WRONG,
        "无法导入: libcudart.so.12: cannot open shared object file",
        "pip install --force-reinstall bitsandbytes",
    )


def test_package_that_lacks_another(monkeypatch):
    break_import(monkeypatch, "peft", ModuleNotFoundError("No module named 'x'", name="x"))
    (finding,) = examine_imports()
    assert finding.state == "无法导入: No module named 'x'"


def test_package_not_installed_is_told_once(monkeypatch):
    break_import(monkeypatch, "peft", ModuleNotFoundError("No module named 'peft'", name="peft"))
    assert examine_imports() == []


def fake_torch(monkeypatch, *, available: bool, cuda: str | None = "12.8", gib: float = 24) -> None:
    torch = ModuleType("torch")
    torch.__version__ = "2.13.0"
    torch.version = SimpleNamespace(cuda=cuda)
    device = SimpleNamespace(name="RTX 4090", total_memory=gib * 2**30, major=8)
    torch.cuda = SimpleNamespace(
        is_available=lambda: available,
        device_count=lambda: 1,
        get_device_properties=lambda index: device,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)


def test_no_gpu_is_noted(monkeypatch):
    fake_torch(monkeypatch, available=False)
    monkeypatch.setattr(doctor_module.shutil, "which", lambda name: None)
    (finding,) = examine_gpu()
    assert finding.level is Level.NOTE
    assert "--model_name embedded" in finding.remedy


def test_gpu_that_torch_cannot_use_is_wrong(monkeypatch):
    fake_torch(monkeypatch, available=False, cuda=None)
    monkeypatch.setattr(doctor_module.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (finding,) = examine_gpu()
    assert finding.level is Level.WRONG
    assert finding.state == "有 NVIDIA GPU，但 torch 2.13.0 (不含 CUDA) 不能使用它"


@pytest.mark.parametrize(("gib", "level"), [(24, Level.OK), (6, Level.NOTE)])
def test_gpu_is_named_with_its_memory(monkeypatch, gib, level):
    fake_torch(monkeypatch, available=True, gib=gib)
    (finding,) = examine_gpu()
    assert (finding.level, finding.state) == (level, f"RTX 4090, {gib}.0 GiB, bf16")


def test_quantisation_works_here():
    (finding,) = examine_quantisation()
    assert finding.level is Level.OK


def test_quantisation_that_fails(monkeypatch):
    import bitsandbytes.functional

    def fail(*args, **kwargs):
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", fail)
    (finding,) = examine_quantisation()
    assert finding.level is Level.WRONG
    assert finding.state.endswith(": no kernel image is available")


def test_quantisation_that_gives_nonsense(monkeypatch):
    import bitsandbytes.functional

    def nothing(packed, state):
        return 0.0

    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", nothing)
    (finding,) = examine_quantisation()
    assert (finding.level, finding.state) == (Level.WRONG, "cpu: 量化误差 1.00 过大")


@pytest.mark.parametrize(
    ("endpoint", "level"),
    [(None, Level.OK), ("https://hf-mirror.com", Level.OK), ("hf-mirror.com", Level.WRONG)],
)
def test_endpoint(monkeypatch, endpoint, level):
    monkeypatch.delenv("TRIPLETUNE_HUB", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint is not None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    (finding,) = examine_settings()
    assert (finding.subject, finding.level) == ("HF_ENDPOINT", level)


def test_unknown_hub(monkeypatch):
    monkeypatch.setenv("TRIPLETUNE_HUB", "modelscop")
    *_, finding = examine_settings()
    assert (finding.level, finding.state) == (Level.WRONG, "'modelscop'")


def test_hub_without_its_package(monkeypatch):
    monkeypatch.setenv("TRIPLETUNE_HUB", "modelscope")
    monkeypatch.setitem(sys.modules, "modelscope", None)
    *_, finding = examine_settings()
    assert finding.remedy == "pip install modelscope"


@pytest.mark.parametrize(("free", "level"), [(50, Level.OK), (5, Level.NOTE)])
def test_free_disk(monkeypatch, free, level):
    usage = SimpleNamespace(free=free * 2**30)
    monkeypatch.setattr(doctor_module.shutil, "disk_usage", lambda path: usage)
    (finding,) = examine_disk(Path("/data"))
    assert (finding.level, finding.state) == (level, f"/data: 可用 {free}.0 GiB")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    header = b'{"a":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(16)
    (tmp_path / "model.safetensors").write_bytes(content)
    return tmp_path


def test_complete_model_folder(model_folder):
    (finding,) = examine_model_folder(model_folder, gpu_gib=None)
    assert (finding.level, finding.state) == (Level.OK, "llama, 1 个权重文件, 0.00 GiB, 完整")


@pytest.mark.parametrize(("given", "level"), [(True, Level.WRONG), (False, Level.NOTE)])
def test_incomplete_model_folder(model_folder, given, level):
    (model_folder / "model.safetensors").unlink()
    (finding,) = examine_model_folder(model_folder, gpu_gib=None, is_given=given)
    assert finding.level is level
    assert "holds no weights of the llama" in finding.state


@pytest.mark.parametrize(("given", "level"), [(True, Level.WRONG), (False, Level.NOTE)])
def test_model_folder_whose_weights_are_of_another_size(tiny_model_dir, tmp_path, given, level):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["inner_hidden_size"] += 64
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (finding,) = examine_model_folder(folder, gpu_gib=None, is_given=given)
    assert finding.level is level
    assert "model.safetensors: transformer.layers.0.mlp.dense_" in finding.state
    assert "has shape" in finding.state


def test_model_too_large_for_the_gpu(model_folder):
    _, finding = examine_model_folder(model_folder, gpu_gib=2.0)
    assert finding.level is Level.NOTE
    assert finding.state == "4-bit 训练约需 2.5 GiB 显存，GPU 只有 2.0 GiB"


def test_cached_models_are_found(monkeypatch):
    import huggingface_hub

    def repository(name, kind, *paths):
        revisions = [SimpleNamespace(snapshot_path=path) for path in paths]
        return SimpleNamespace(repo_id=name, repo_type=kind, revisions=revisions)

    repositories = [
        repository("THUDM/chatglm-6b", "model", "/c/b", "/c/a"),
        repository("someone/llama", "model", "/c/x"),
        repository("someone/chatglm-data", "dataset", "/c/y"),
    ]
    monkeypatch.setattr(
        huggingface_hub, "scan_cache_dir", lambda: SimpleNamespace(repos=repositories)
    )
    assert find_cached_models() == [Path("/c/a"), Path("/c/b")]


def test_no_cache_is_no_error(monkeypatch, tmp_path):
    import huggingface_hub

    def missing():
        raise huggingface_hub.errors.CacheNotFound("none", tmp_path)

    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", missing)
    assert find_cached_models() == []


def run(*arguments: str):
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, list(arguments))


def test_doctor_exits_with_1_and_lists_what_to_mend(tmp_path):
    result = run(str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "发现 1 个必须处理的问题:" in result.output
    assert "is no folder" in result.output


def test_doctor_exits_with_0_when_all_is_well(model_folder, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("TRIPLETUNE_HUB", raising=False)
    result = run(str(model_folder))
    assert result.exit_code == 0
    assert "没有发现必须处理的问题。" in result.output


def test_doctor_looks_into_the_cache_by_default(model_folder, monkeypatch):
    monkeypatch.setattr(doctor_module, "find_cached_models", lambda: [model_folder])
    result = run()
    assert result.exit_code == 0
    assert "llama" in result.output
