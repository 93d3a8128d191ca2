"""Every file of the reference data sets converts, with the counts that came with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tripletune.data.convert import convert_file
from tripletune.data.readers import load_examples
from tripletune.data.schema_files import load_schema
from tripletune.errors import DataError
from tripletune.schema import Example

# Folder and file, format, examples, different triplets (object slots aside).
# Normalised files: the counts of their SOURCE.md. Originals: see the comments.
NORMALISED = [
    ("auto_fault/train.jsonl", 1091, 4602),
    ("auto_fault/dev.jsonl", 100, 423),
    ("chatglm_mixed_spo/train.jsonl", 500, 1023),
    ("chatglm_mixed_spo/dev.jsonl", 59, 126),
    ("cmeie/train.jsonl", 400, 1194),
    ("cmeie/dev.jsonl", 50, 158),
    ("diakg_sample/normalised.jsonl", 60, 136),
    ("duie1/train.jsonl", 1300, 2783),
    ("duie1/dev.jsonl", 100, 218),
    ("duie2/train.jsonl", 5000, 8939),
    ("duie2/dev.jsonl", 499, 958),
    ("finre/train.jsonl", 3500, 5564),
    ("finre/dev.jsonl", 396, 633),
    ("iepile_samples/normalised.jsonl", 16, 47),
    ("people_relation/train.jsonl", 1673, 1852),
    ("people_relation/dev.jsonl", 300, 342),
    ("sanwen/train.jsonl", 2500, 2935),
    ("sanwen/dev.jsonl", 300, 321),
    ("triplet_template_seed/train.jsonl", 903, 908),
    ("triplet_template_seed/dev.jsonl", 101, 103),
]
ORIGINALS = [
    # One line a sentence: as many examples as SOURCE.md has lines.
    ("auto_fault/original_slice_chatglm.jsonl", "instruction", 200, {}),
    ("auto_fault/original_slice_offsets.jsonl", "offsets", 200, {}),
    ("auto_fault/original_slice_doccano.jsonl", "doccano", 100, {}),
    ("cmeie/original_slice.jsonl", "spo_list", 200, {}),
    ("duie1/original_slice.jsonl", "spo_list", 200, {}),
    ("duie2/original_slice.jsonl", "spo_list", 200, {}),
    ("duie2/original_dev.jsonl", "spo_list", 499, {}),
    ("triplet_template_seed/original_slice.jsonl", "instruction", 200, {}),
    # The other 100 lines are classification.
    ("chatglm_mixed_spo/original_slice.jsonl", "context", 100, {"not_extraction": 100}),
    # One line a pair: as many examples as there are different sentences (cut -f4 | sort -u).
    ("finre/original_slice.txt", "tsv", 94, {}),
    ("sanwen/original_slice.txt", "tsv", 151, {}),
    ("people_relation/original_slice.tsv", "tsv", 124, {}),
    # One paragraph an example, as in the normalised file.
    ("diakg_sample/original_sample.json", "diakg", 60, {}),
    ("iepile_samples/RE_sample.json", "relation_list", 6, {}),
    ("iepile_samples/SPO_sample.json", "relation_list", 5, {}),
    ("iepile_samples/KG_sample.json", "relation_list", 5, {}),
    # Twelve lines a sentence, for 49 and 48 relations in fours.
    ("iepile_samples/RE_train.json", "iepile", 6, {}),
    ("iepile_samples/RE_test.json", "iepile", 6, {}),
    ("iepile_samples/SPO_train.json", "iepile", 5, {}),
    ("iepile_samples/SPO_test.json", "iepile", 5, {}),
    ("iepile_samples/KG_train.json", "iepile", 5, {}),
]
OTHERS = [
    # Gold triplets: 436, as SOURCE.md says.
    ("duie1/casrel_gold_vs_pred_200.json", "triple_list", 200, 436, {}),
    ("promptcblue_cmeie_samples/original_slice.jsonl", "prose", 10, 28, {}),
    # 58 results under the 82 prompts with 的, in 57 texts.
    ("uie_prompt_format/original_slice.txt", "uie", 57, 58, {}),
    # Six documents with 32 relation lines (grep -c ^R), one pair twice.
    ("sanwen/brat_documents", "brat", 6, 31, {}),
    # 120 of 200 rows have two names of one length.
    ("people_relation/original_slice_masked.txt", "masked", 77, 57, {"ambiguous_mask": 120}),
]
RICHER = {"auto_fault/original_slice_doccano.jsonl", "iepile_samples/KG_train.json"}
"""Originals with entity types that their normalised lines lack."""
SCHEMAS = [
    ("cmeie/53_schemas.json", 44),
    ("duie1/all_50_schemas", 49),
    ("duie2/duie_schema.json", 48),
    ("finre/relation2id.txt", 43),
    ("iepile_samples/RE_schema.json", 49),
    ("iepile_samples/SPO_schema.json", 48),
    ("sanwen/relation2id.txt", 9),
]


@pytest.fixture(scope="session")
def datasets_dir(shared_dir: Path) -> Path:
    return shared_dir / "datasets"


def convert(source: Path, folder: Path) -> tuple[list[Example], dict[str, Any]]:
    """The examples that come out, and the report of what did not."""
    target = folder / "out.jsonl"
    convert_file(source, target)
    report: dict[str, Any] = json.loads((folder / "out.jsonl.report.json").read_text("utf-8"))
    return load_examples(target), report


def num_different(examples: list[Example]) -> int:
    return sum(len(set(example.triplets)) for example in examples)


def read_items(record: dict[str, Any]) -> tuple[str, ...]:
    """Items and types; a type is "" where there is none."""
    names = ("subject", "relation", "object", "subject_type", "object_type")
    return tuple(record.get(name, "") for name in names)


@pytest.mark.parametrize(("name", "num_examples", "num_triplets"), NORMALISED)
def test_normalised_file_converts(
    datasets_dir: Path, tmp_path: Path, name: str, num_examples: int, num_triplets: int
) -> None:
    examples, report = convert(datasets_dir / name, tmp_path)
    assert (len(examples), num_different(examples)) == (num_examples, num_triplets)
    assert report["reasons"] == {}
    assert report["input_format"] == "canonical"


@pytest.mark.parametrize(("name", "format_name", "num_examples", "dropped"), ORIGINALS)
def test_original_file_converts_to_what_its_normalised_lines_say(
    datasets_dir: Path,
    tmp_path: Path,
    name: str,
    format_name: str,
    num_examples: int,
    dropped: dict[str, int],
) -> None:
    examples, report = convert(datasets_dir / name, tmp_path)
    assert report["input_format"] == format_name
    assert len(examples) == num_examples
    assert report["reasons"].get("dropped record", {}) == dropped
    assert "dropped triplet" not in report["reasons"]
    normalised: dict[str, set[Any]] = {}
    for path in (datasets_dir / name).parent.glob("*.jsonl"):
        if path.stem in {"train", "dev", "normalised"}:
            for line in path.read_text("utf-8").split("\n")[:-1]:
                record = json.loads(line)
                normalised.setdefault(record["text"], set()).update(
                    map(read_items, record["triplets"])
                )
    shown = 3 if name in RICHER else 5
    found = {
        e.text: {(*read_items(t.to_record())[:shown], "", "")[:5] for t in e.triplets}
        for e in examples
    }
    assert found == {e.text: normalised[e.text] for e in examples}


@pytest.mark.parametrize(("name", "format_name", "num_examples", "num_triplets", "dropped"), OTHERS)
def test_file_without_normalised_lines_converts(
    datasets_dir: Path,
    tmp_path: Path,
    name: str,
    format_name: str,
    num_examples: int,
    num_triplets: int,
    dropped: dict[str, int],
) -> None:
    examples, report = convert(datasets_dir / name, tmp_path)
    assert report["input_format"] == format_name
    assert (len(examples), num_different(examples)) == (num_examples, num_triplets)
    assert report["reasons"].get("dropped record", {}) == dropped


@pytest.mark.parametrize(("name", "num_relations"), SCHEMAS)
def test_schema_file_is_read_as_schema_and_refused_as_data(
    datasets_dir: Path, name: str, num_relations: int
) -> None:
    assert len(load_schema(datasets_dir / name)) == num_relations
    with pytest.raises(DataError, match=r"known format|is a relation schema"):
        load_examples(datasets_dir / name)


def test_tables_name_every_file(datasets_dir: Path) -> None:
    named = {row[0] for row in (*NORMALISED, *ORIGINALS, *OTHERS, *SCHEMAS)}
    present = {
        path.relative_to(datasets_dir).as_posix()
        for path in datasets_dir.glob("*/*")
        if path.suffix != ".md"
    }
    assert named == present


def test_object_slots_are_all_kept(datasets_dir: Path) -> None:
    slots = [
        name
        for example in load_examples(datasets_dir / "duie2/original_dev.jsonl")
        for triplet in example.triplets
        for name, _ in triplet.object_slots
    ]
    lines = (datasets_dir / "duie2/original_dev.jsonl").read_text("utf-8").splitlines()
    expected = [
        name
        for line in lines
        for entry in json.loads(line)["spo_list"]
        for name, value in entry["object"].items()
        if name != "@value" and value
    ]
    assert len(expected) > 20
    assert sorted(slots) == sorted(expected)


def test_masked_names_are_put_back_as_in_the_full_sentences(datasets_dir: Path) -> None:
    folder = datasets_dir / "people_relation"
    known = {
        (example.text, triplet.key)
        for name in ("train", "dev")
        for example in load_examples(folder / f"{name}.jsonl")
        for triplet in example.triplets
    }
    from tripletune.data.readers import read_examples

    examples = read_examples(folder / "original_slice_masked.txt", on_problem=lambda p: None)
    found = {(example.text, triplet.key) for example in examples for triplet in example.triplets}
    assert len(found) == 57
    assert found <= known


def test_canonical_and_instruction_files_come_back_byte_for_byte(
    datasets_dir: Path, tmp_path: Path
) -> None:
    source = datasets_dir / "triplet_template_seed/original_slice.jsonl"
    instruction = json.loads(source.read_text("utf-8").split("\n", 1)[0])["instruction"]
    there, back = tmp_path / "there.jsonl", tmp_path / "back.jsonl"
    convert_file(source, there)
    convert_file(there, back, output_format="instruction", instruction=instruction)
    assert back.read_bytes() == source.read_bytes()
    again = tmp_path / "again.jsonl"
    convert_file(there, again)
    assert again.read_bytes() == there.read_bytes()
