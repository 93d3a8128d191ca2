from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tripletune.data.generator.dataset import (
    DatasetPlan,
    generate_examples,
    write_dataset,
    write_default_data,
)
from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.sentences import Difficulty, SentenceGenerator
from tripletune.errors import ConfigError, OutputError
from tripletune.schema import Example

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
    assert digests == ["0b71f1ef25b9d2768e3c3cb0cb2fedf3", "1eb6f10257e8e47b027c578a942b78d3"]


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
    files = generate_examples(DatasetPlan(3000, 300, seed=5))
    everything = "\n".join(example.text for example in files["train_triplet.jsonl"])
    texts = {example.text for example in files["val_triplet.jsonl"]}
    source = SentenceGenerator("validation", 5)
    num_names = 0
    while texts:
        sentence = source.generate_sentence()
        if sentence.text in texts:
            texts.discard(sentence.text)
            names = list(source.open_names(sentence))
            num_names += len(names)
            assert [name for name in names if name in everything] == []
    assert num_names > 500


def test_unseen_phrasings_occur_in_one_file_only():
    files = generate_examples(DatasetPlan(1500, 300, 300, seed=3))
    texts = {name: " ".join(example.text for example in files[name]) for name in files}
    found = {
        name: (bool(re.search("由[^，。]*执导", text)), "执导了" in text)
        for name, text in texts.items()
    }
    # `由|执导` is reserved, `|执导了` is not.
    assert found == {
        "train_triplet.jsonl": (False, True),
        "val_triplet.jsonl": (False, True),
        "val_unseen_phrasing.jsonl": (True, False),
    }


def test_write_dataset_gives_the_same_bytes_with_any_number_of_processes(tmp_path):
    plan = DatasetPlan(5500, 50, 50, seed=9)
    files = [
        [file.path.read_bytes() for file in write_dataset(plan, tmp_path / str(n), num_processes=n)]
        for n in (1, 2)
    ]
    assert len(files[0]) == 3
    assert files[0] == files[1]


def test_write_dataset_reports_progress_to_the_end(tmp_path):
    calls = []
    write_dataset(
        DatasetPlan(1500, 20), tmp_path, progress=lambda *arguments: calls.append(arguments)
    )
    assert calls == [
        ("train_triplet.jsonl", 1000, 1500),
        ("train_triplet.jsonl", 1500, 1500),
        ("val_triplet.jsonl", 20, 20),
    ]


def test_write_dataset_says_when_a_domain_is_too_small(tmp_path):
    types = {"甲": EntityType("甲", "甲", "甲", names=("子", "丑"), shared=True)}
    domain = Domain(types, (Relation("是", "甲", "甲", sentences=("{s}是{o}",)),))
    plain = Difficulty(num_triplets=(0, 1), opener_rate=0, closer_rate=0)
    with pytest.raises(ConfigError, match="more different sentences are wanted"):
        write_dataset(DatasetPlan(1000, 2, difficulty=plain, domain=domain), tmp_path)
    assert os.listdir(tmp_path) == []


def test_write_dataset_says_when_validation_takes_all_names(tmp_path):
    types = {
        "甲": EntityType("甲", "甲", "甲", names=("子", "丑", "寅", "卯"), shared=False),
        "乙": EntityType("乙", "乙", "人物"),
    }
    domain = Domain(types, (Relation("是", "甲", "乙", sentences=("{s}是{o}",)),))
    with pytest.raises(ConfigError, match="none of its names belongs to the pool 'validation'"):
        write_dataset(DatasetPlan(10, 10, domain=domain), tmp_path)


def test_generate_examples_are_those_that_are_written(files):
    made = generate_examples(DatasetPlan())
    for file in files:
        lines = [example.to_json() for example in made[file.path.name]]
        assert lines == file.path.read_text(encoding="utf-8").splitlines()


def test_plan_refuses_unseen_phrasings_where_no_relation_has_two():
    types = {name: EntityType(name, name, "专名") for name in ("甲", "乙")}
    domain = Domain(types, (Relation("r", "甲", "乙", sentences=("{s}对{o}",)),))
    DatasetPlan(1, 1, 0, domain=domain)
    with pytest.raises(
        ConfigError, match="num_unseen_phrasing: 5 sentences need phrasings of thei"
    ):
        DatasetPlan(1, 1, 5, domain=domain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "num_train: 0 is not a number of sentences; give at least 1"),
        ((1, 0), "num_validation: 0 is not a number of sentences; give at least 1"),
        ((5, 5, -3), "num_unseen_phrasing: -3 is not a number of sentences; give at least 0"),
    ],
)
def test_plan_refuses_numbers_that_are_too_small(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DatasetPlan(*arguments)


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
