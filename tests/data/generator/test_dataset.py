from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tripletune.data.generator import SentenceGenerator
from tripletune.data.generator.dataset import (
    NameFilter,
    generate_examples,
    open_names,
    write_default_data,
    write_files,
)
from tripletune.errors import ConfigError, OutputError
from tripletune.schema import Example, Triplet

OPEN_TYPES = {
    *("人物", "公司", "学校", "地点", "图书", "影视作品", "歌曲", "专辑", "出版社", "奖项", "产品"),
}


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_default_data(folder)


def test_write_default_data_writes_903_and_101_lines(files):
    train, validation = files
    assert (train.path.name, validation.path.name) == ("train_triplet.jsonl", "val_triplet.jsonl")
    assert len(read(train.path)) == train.num_examples == 903
    assert len(read(validation.path)) == validation.num_examples == 101


def test_write_default_data_writes_canonical_lines(files):
    for file in files:
        for line in file.path.read_text(encoding="utf-8").splitlines():
            assert Example.from_record(json.loads(line)).to_json() == line


def test_write_default_data_gives_the_same_bytes_for_the_same_seed(files):
    # Recorded with Python 3.10.13, 3.11.7, 3.12.1 and 3.13.0, which all agree.
    digests = [hashlib.md5(file.path.read_bytes()).hexdigest() for file in files]
    assert digests == ["e5d18e46adb147fe6151dc7a79e05c3e", "b861682461f6de1ed1e2a653955300f0"]


def test_write_default_data_gives_other_bytes_for_another_seed(files, tmp_path):
    other = write_default_data(tmp_path, seed=7)
    assert other[0].path.read_bytes() != files[0].path.read_bytes()


def test_summary_counts_what_the_file_holds(files):
    for file in files:
        records = read(file.path)
        triplets = [triplet for record in records for triplet in record["triplets"]]
        assert file.num_triplets == len(triplets)
        assert file.num_relations == len({triplet["relation"] for triplet in triplets})
        assert file.num_empty == sum(not record["triplets"] for record in records)
        assert file.mean_characters == pytest.approx(
            sum(len(record["text"]) for record in records) / len(records)
        )


def test_default_data_has_many_relations_and_some_empty_sentences(files):
    train, validation = files
    assert train.num_relations >= 20
    assert validation.num_relations >= 20
    assert 0.05 < train.num_empty / train.num_examples < 0.25
    assert 0.05 < validation.num_empty / validation.num_examples < 0.25


def test_validation_entities_never_occur_in_training(files):
    train, validation = files
    everything = "\n".join(record["text"] for record in read(train.path))
    names = {
        triplet[side]
        for record in read(validation.path)
        for triplet in record["triplets"]
        for side in ("subject", "object")
        if triplet[f"{side}_type"] in OPEN_TYPES
    }
    assert len(names) > 150
    assert [name for name in names if name in everything] == []


def test_no_sentence_occurs_twice(files):
    texts = [record["text"] for file in files for record in read(file.path)]
    assert len(set(texts)) == len(texts) == 1004


def test_distractors_of_validation_never_occur_in_training():
    train, validation = generate_examples(3000, 300, seed=5)
    source = SentenceGenerator("validation", 5)
    sentences = [source.generate_sentence() for _ in range(len(validation))]
    texts = {example.text for example in validation}
    everything = "\n".join(example.text for example in train)
    for sentence in sentences:
        if sentence.text in texts:
            assert [name for name in open_names(sentence) if name in everything] == []


def test_generate_examples_can_hold_out_phrasings():
    train, validation = generate_examples(1500, 300, seed=3, hold_out_phrasings=True)
    sides = [" ".join(example.text for example in part) for part in (train, validation)]
    # `由|执导` is reserved for validation, `|执导了` is not.
    assert [len(re.findall("由[^，。]*执导", text)) > 0 for text in sides] == [False, True]
    assert [len(re.findall("执导了", text)) > 0 for text in sides] == [True, False]


@pytest.mark.parametrize(("train", "validation"), [(0, 1), (1, 0), (-3, 5)])
def test_generate_examples_refuses_numbers_below_one(train, validation):
    with pytest.raises(ConfigError, match=r"(num_train|num_validation): (0|-3) is not"):
        generate_examples(train, validation)


def test_name_filter_finds_names_inside_longer_words():
    names = NameFilter(["王芳", "临海大学"])
    assert names.occurs("王芳华来了")
    assert names.occurs("新临海大学城")
    assert not names.occurs("王小芳在临海的大学")


def test_write_files_leaves_the_old_file_when_a_line_fails(tmp_path):
    def broken():
        yield Example("新的一行。")
        raise ConfigError("no more")

    old = tmp_path / "a.jsonl"
    old.write_text("old\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no more"):
        write_files({old: broken()})
    assert os.listdir(tmp_path) == ["a.jsonl"]
    assert old.read_text(encoding="utf-8") == "old\n"


def test_write_files_replaces_nothing_before_all_are_complete(tmp_path):
    def broken():
        raise ConfigError("no more")
        yield

    first = tmp_path / "a.jsonl"
    with pytest.raises(ConfigError, match="no more"):
        write_files({first: [Example("一行。")], tmp_path / "b.jsonl": broken()})
    assert os.listdir(tmp_path) == []


def test_write_files_writes_the_canonical_line(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    write_files({path: [Example("甲在乙。", (Triplet("甲", "位于", "乙"),))]})
    assert path.read_bytes().decode() == (
        '{"text": "甲在乙。", "triplets": '
        '[{"subject": "甲", "relation": "位于", "object": "乙"}]}\n'
    )


def test_write_default_data_names_a_folder_that_is_a_file(tmp_path):
    file = tmp_path / "taken"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"taken/train_triplet\.jsonl: cannot be written"):
        write_default_data(file)
    assert file.read_text(encoding="utf-8") == "mine"


def run_script(repository, folder, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    return subprocess.run(
        [sys.executable, str(folder / "generate_triplet_data.py"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_script_writes_beside_itself_from_any_working_directory(repository, tmp_path, files):
    folder = tmp_path / "data"
    folder.mkdir()
    script = repository / "data" / "generate_triplet_data.py"
    (folder / script.name).write_bytes(script.read_bytes())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run_script(repository, folder, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert os.listdir(elsewhere) == []
    for file in files:
        assert (folder / file.path.name).read_bytes() == file.path.read_bytes()
    assert "训练集: 903 条" in done.stdout
    assert "验证集: 101 条" in done.stdout


def test_script_takes_seed_numbers_and_folder(repository, tmp_path):
    done = run_script(
        repository,
        repository / "data",
        *("--seed", "3", "--num_train", "20", "--num_validation", "5"),
        *("--output_dir", str(tmp_path / "out")),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    expected = write_default_data(tmp_path / "direct", seed=3, num_train=20, num_validation=5)
    for file in expected:
        assert (tmp_path / "out" / file.path.name).read_bytes() == file.path.read_bytes()


def test_script_says_a_wrong_number_in_one_line(repository, tmp_path):
    done = run_script(
        repository,
        repository / "data",
        *("--num_train", "0", "--output_dir", str(tmp_path)),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "num_train: 0 is not a number of sentences" in done.stderr
    assert "Traceback" not in done.stderr


def test_script_can_be_imported_without_writing(repository):
    path = repository / "data" / "generate_triplet_data.py"
    spec = importlib.util.spec_from_file_location("generate_triplet_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert path.parent == module.DATA_DIR
