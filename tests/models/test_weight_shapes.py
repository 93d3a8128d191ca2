from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tripletune.errors import ModelError
from tripletune.models.checkpoint_files import describe_model_folder
from tripletune.models.weight_shapes import check_weight_shapes


def copy_official(shared_dir: Path, target: Path, family: str, pattern: str) -> None:
    source = shared_dir / "references" / family
    for path in [source / "config.json", *source.glob(pattern)]:
        shutil.copyfile(path, target / path.name)


@pytest.mark.parametrize("family", ["chatglm-6b", "chatglm2-6b"])
def test_official_layouts_pass_with_shapes(shared_dir, family):
    check_weight_shapes(shared_dir / "references" / family)


def test_official_bins_pass_with_shapes(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm-6b", "pytorch_model*")
    check_weight_shapes(tmp_path)
    assert describe_model_folder(tmp_path).weight_files == (
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    )


def test_wrong_shape(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm2-6b", "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"ffn_hidden_size": 200}), "utf-8")
    message = r"dense_.*has shape \[.*\], but config\.json describes \[.*\]"
    with pytest.raises(ModelError, match=message):
        check_weight_shapes(tmp_path)


def test_missing_tensors(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm2-6b", "none")
    tensors = load_file(shared_dir / "references/chatglm2-6b/model.safetensors")
    kept = {name: t for name, t in tensors.items() if "layers.2" not in name}
    save_file(kept, tmp_path / "model.safetensors")
    message = r"no weight file holds transformer\.encoder\.layers\.2\..* and 4 more"
    with pytest.raises(ModelError, match=message):
        check_weight_shapes(tmp_path)


def test_bin_that_holds_code(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm2-6b", "none")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(print, protocol=2))
    message = r"pytorch_model\.bin: .* it names \S*print, which is code .* do not use this file"
    with pytest.raises(ModelError, match=message) as error:
        check_weight_shapes(tmp_path)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)


def test_bin_that_is_damaged_inside(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm-6b", "pytorch_model*")
    path = tmp_path / "pytorch_model-00001-of-00002.bin"
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"00001-of-00002\.bin: .*damaged.*; download") as error:
        check_weight_shapes(tmp_path)
    assert "\n" not in str(error.value)


def test_bin_of_the_old_format_that_is_cut_off(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm2-6b", "none")
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: cannot be read .*EOF.*; download"):
        check_weight_shapes(tmp_path)


def test_bin_that_holds_no_tensors_by_name(shared_dir, tmp_path):
    copy_official(shared_dir, tmp_path, "chatglm2-6b", "none")
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: holds a list, not named tensors"):
        check_weight_shapes(tmp_path)


def test_shapes_of_other_models_are_passed_over(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    save_file({"a": torch.zeros(4, 3)}, tmp_path / "model.safetensors")
    check_weight_shapes(tmp_path)
