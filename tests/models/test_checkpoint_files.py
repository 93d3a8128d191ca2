from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tripletune.errors import ModelError
from tripletune.models.checkpoint_files import (
    check_gguf_file,
    check_model_folder,
    check_vocabulary,
    describe_model_folder,
    find_full_precision_id,
    is_lfs_pointer,
    read_safetensors_header,
)

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:5e974d9a69c242ce014c88c2b26089270f6198f3c0b700a887666cd3e816f17e\n"
    "size 1740651802\n"
)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_config(folder: Path, **fields) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | fields), "utf-8")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    write_config(tmp_path, dtype="float16")
    save_file({"a": torch.zeros(4, 3), "b": torch.ones(2)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write_config(tmp_path)
    save_file({"a": torch.zeros(4, 3)}, tmp_path / FIRST)
    save_file({"b": torch.ones(2)}, tmp_path / SECOND)
    write_index(tmp_path, {"a": FIRST, "b": SECOND})
    return tmp_path


def write_index(folder: Path, weight_map: object, name: str = "model.safetensors") -> None:
    fields = {"metadata": {"total_size": 56}, "weight_map": weight_map}
    (folder / f"{name}.index.json").write_text(json.dumps(fields), encoding="utf-8")


def write_bins(folder: Path, **settings) -> tuple[Path, Path]:
    write_config(folder)
    paths = (folder / "pytorch_model-1.bin", folder / "pytorch_model-2.bin")
    torch.save({"a": torch.zeros(4, 3)}, paths[0], **settings)
    torch.save({"b": torch.ones(2)}, paths[1], **settings)
    write_index(folder, {"a": paths[0].name, "b": paths[1].name}, "pytorch_model.bin")
    return paths


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-num_bytes])


def test_whole_folders_pass(single):
    check_model_folder(single)


def test_whole_shards_pass(sharded):
    check_model_folder(sharded)


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_bins_pass(tmp_path, zipped):
    write_bins(tmp_path, _use_new_zipfile_serialization=zipped)
    check_model_folder(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere: is no folder; give the folder that holds"):
        check_model_folder(tmp_path / "nowhere")


def test_missing_config(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: does not exist; download"):
        check_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "holds a list"),
        (POINTER, "Git LFS pointer, not the file of"),
    ],
)
def test_unreadable_config(single, text, message):
    (single / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=rf"config\.json: .*{message}"):
        check_model_folder(single)


@pytest.mark.parametrize(
    ("fields", "full"),
    [
        ({"inner_hidden_size": 16384}, "THUDM/chatglm-6b"),
        ({"multi_query_group_num": 2, "seq_length": 32768}, "THUDM/chatglm2-6b"),
        ({"multi_query_group_num": 2, "seq_length": 8192}, "THUDM/chatglm3-6b"),
    ],
)
def test_prequantised_weights_name_the_full_model(single, fields, full):
    config = {"model_type": "chatglm", "quantization_bit": 4} | fields
    write_config(single, **config)
    assert find_full_precision_id(config) == full
    with pytest.raises(ModelError, match=rf"quantization_bit 4: INT4 .* use '{full}'"):
        check_model_folder(single)


def test_unquantised_checkpoint_with_the_field_passes(single):
    write_config(single, model_type="chatglm", inner_hidden_size=1, quantization_bit=0)
    check_model_folder(single)


def test_pointer_in_place_of_weights(single):
    (single / "model.safetensors").write_text(POINTER, encoding="utf-8")
    message = r"model\.safetensors: is a Git LFS pointer, not the file of 1,740,651,802 bytes"
    with pytest.raises(ModelError, match=message + r" itself; run 'git lfs install'"):
        check_model_folder(single)


def test_pointers_in_place_of_all_shards_are_one_message(sharded):
    for name in (FIRST, SECOND):
        (sharded / name).write_text(POINTER, encoding="utf-8")
    with pytest.raises(ModelError, match=rf"{FIRST}: is a Git LFS .*so are 1 other weight"):
        check_model_folder(sharded)


def test_small_file_is_no_pointer(single):
    assert not is_lfs_pointer(single / "config.json")


def test_missing_shard(sharded):
    (sharded / SECOND).unlink()
    message = rf"1 of 2 weight files named in model\.safetensors\.index\.json are missing: {SECOND}"
    with pytest.raises(ModelError, match=message):
        check_model_folder(sharded)


def test_missing_index(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match=rf"index\.json: does not exist, though {FIRST} does"):
        check_model_folder(sharded)


def test_no_weights(tmp_path):
    write_config(tmp_path)
    with pytest.raises(ModelError, match=r"holds no weights of the llama \(model\.safetensors"):
        check_model_folder(tmp_path)


@pytest.mark.parametrize("weight_map", [{}, None, [FIRST]])
def test_index_without_weight_map(sharded, weight_map):
    write_index(sharded, weight_map)
    with pytest.raises(ModelError, match=r"index\.json: has no weight_map"):
        check_model_folder(sharded)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "a/../../b", "C:\\weights", "..\\b", "\\\\x\\y"],
)
def test_index_that_leaves_the_folder(sharded, name):
    write_index(sharded, {"a": FIRST, "b": name})
    with pytest.raises(ModelError, match=r"names the weight file .*lies outside the folder"):
        check_model_folder(sharded)


def test_index_may_name_a_subfolder(sharded):
    (sharded / "parts").mkdir()
    (sharded / SECOND).rename(sharded / "parts" / SECOND)
    write_index(sharded, {"a": FIRST, "b": f"parts/{SECOND}"})
    check_model_folder(sharded)


def test_link_to_a_cache_is_followed(single, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cache") / "blob"
    (single / "model.safetensors").rename(elsewhere)
    (single / "model.safetensors").symlink_to(elsewhere)
    check_model_folder(single)


def test_truncated_safetensors(single):
    path = single / "model.safetensors"
    size = path.stat().st_size
    cut(path, 5)
    with pytest.raises(ModelError, match=rf"is cut off, {size - 5} of {size} bytes"):
        check_model_folder(single)


@pytest.mark.parametrize("kept", [0, 5, 20])
def test_safetensors_cut_in_its_header(single, kept):
    path = single / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=rf"{kept} bytes that are no whole safetensors header"):
        check_model_folder(single)


@pytest.mark.parametrize("header", [b"not json", b"[1, 2]", b'{"a": {}}'])
def test_safetensors_with_another_header(single, header):
    content = len(header).to_bytes(8, "little") + header
    (single / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is no safetensors file"):
        check_model_folder(single)


def test_two_damaged_shards_are_counted(sharded):
    for name in (FIRST, SECOND):
        cut(sharded / name, 1)
    with pytest.raises(ModelError, match=rf"{FIRST}: is cut off.*and 1 more of this kind"):
        check_model_folder(sharded)


def test_truncated_bin(tmp_path):
    _, second = write_bins(tmp_path)
    cut(second, 40)
    with pytest.raises(ModelError, match=r"pytorch_model-2\.bin: is cut off after [\d,]+ bytes"):
        check_model_folder(tmp_path)


def test_bins_with_fewer_bytes_than_the_index_says(tmp_path):
    for path in write_bins(tmp_path, _use_new_zipfile_serialization=False):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelError, match=r"have 40 bytes, .*index\.json says 56; one of them"):
        check_model_folder(tmp_path)


def test_web_page_in_place_of_a_bin(tmp_path):
    _, second = write_bins(tmp_path)
    second.write_text("<html>login</html>", encoding="utf-8")
    with pytest.raises(ModelError, match=r"is no PyTorch weight file \(it begins with b'<htm'\)"):
        check_model_folder(tmp_path)


def test_gguf_folder(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03")
    check_model_folder(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="is no GGUF file"):
        check_model_folder(tmp_path)


def test_header_lists_tensors(single):
    header = read_safetensors_header(single / "model.safetensors")
    assert {name: tensor["shape"] for name, tensor in header.items()} == {"a": [4, 3], "b": [2]}


def test_description_of_a_whole_folder(single):
    (single / "tokenizer.json").write_text("{}", encoding="utf-8")
    folder = describe_model_folder(single)
    assert folder.is_complete
    assert (folder.family, folder.dtype) == ("llama", "float16")
    assert folder.weight_files == ("model.safetensors",)
    assert folder.num_bytes == (single / "model.safetensors").stat().st_size
    assert folder.vocabulary_file == "tokenizer.json"


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("chatglm-6b", "ChatGLM-6B"),
        ("chatglm2-6b", "ChatGLM2-6B"),
        ("chatglm3-6b", "ChatGLM3-6B"),
    ],
)
def test_description_of_a_folder_without_weights(shared_dir, family, name):
    folder = describe_model_folder(shared_dir / "tokenizers" / family)
    assert folder.family == name
    assert folder.dtype == "float16"
    assert folder.vocabulary_file in ("ice_text.model", "tokenizer.model")
    assert len(folder.problems) == 1
    assert "holds no weights" in folder.problems[0]


def test_description_lists_every_problem(single):
    write_config(single, model_type="chatglm", inner_hidden_size=1)
    cut(single / "model.safetensors", 1)
    problems = describe_model_folder(single).problems
    assert len(problems) == 2
    assert "is cut off" in problems[0]
    assert "holds no vocabulary (ice_text.model)" in problems[1]


def test_description_of_a_missing_folder(tmp_path):
    folder = describe_model_folder(tmp_path / "nowhere")
    assert folder.family is None
    assert folder.problems == (
        f"{tmp_path / 'nowhere'}: is no folder; give the folder that holds config.json",
    )


@pytest.mark.parametrize(
    ("text", "message"), [(POINTER, "is a Git LFS pointer"), ("x", "is no SentencePiece model")]
)
def test_description_of_a_damaged_vocabulary(single, text, message):
    write_config(single, model_type="chatglm", padded_vocab_size=10)
    (single / "tokenizer.model").write_text(text, encoding="utf-8")
    (problem,) = describe_model_folder(single).problems
    assert message in problem


def test_vocabulary_larger_than_the_embeddings(shared_dir, single):
    write_config(single, model_type="chatglm", padded_vocab_size=1000)
    shutil.copy(shared_dir / "tokenizers/chatglm2-6b/tokenizer.model", single)
    (problem,) = describe_model_folder(single).problems
    assert "has 64789 pieces, the model's embeddings only 1000" in problem


def test_vocabulary_with_other_special_ids(shared_dir, single):
    fields = {"inner_hidden_size": 1, "vocab_size": 150528, "bos_token_id": 150004}
    write_config(single, model_type="chatglm", **fields)
    shutil.copy(shared_dir / "tokenizers/chatglm-6b/ice_text.model", single)
    (problem,) = describe_model_folder(single).problems
    assert "has <sop> at 130004, config.json says bos_token_id 150004" in problem


def test_vocabulary_check_says_what_the_description_says(shared_dir, single):
    shutil.copyfile(shared_dir / "tokenizers/chatglm-6b/ice_text.model", single / "ice_text.model")
    write_config(single, model_type="chatglm", inner_hidden_size=8, vocab_size=500)
    (problem,) = describe_model_folder(single).problems
    with pytest.raises(ModelError) as error:
        check_vocabulary(single)
    assert str(error.value) == problem


def test_vocabulary_of_another_generation(shared_dir, single):
    shutil.copyfile(shared_dir / "tokenizers/chatglm-6b/ice_text.model", single / "ice_text.model")
    write_config(single, model_type="chatglm", padded_vocab_size=65024)
    with pytest.raises(ModelError, match=r"holds no vocabulary \(tokenizer\.model\); download"):
        check_vocabulary(single)


def test_vocabulary_that_is_not_there_is_no_problem_of_this_check(single, tmp_path):
    check_vocabulary(single)
    check_vocabulary(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<html>", r"model\.gguf: is no GGUF file"), (POINTER.encode(), "is a Git LFS pointer")],
)
def test_gguf_file_that_is_none(tmp_path, content, message):
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        check_gguf_file(tmp_path / "model.gguf")


def test_gguf_file_passes(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF and more")
    check_gguf_file(tmp_path / "model.gguf")
