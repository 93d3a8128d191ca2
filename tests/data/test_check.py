from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tripletune.data.check import CheckReport, CheckSettings, check_files
from tripletune.data.inspection import SEVERITIES
from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.errors import ConfigError
from tripletune.schema import Example, Triplet

LONG = "百度在线网络技术有限公司于二零零零年一月一日在北京中关村创立，创始人是李彦宏。"


def write(path: Path, *examples: Example) -> Path:
    path.write_text("".join(example.to_json() + "\n" for example in examples), encoding="utf-8")
    return path


def places(report: CheckReport) -> set[tuple[str, str, int | None]]:
    return {(f.kind, Path(f.path).name, f.line) for f in report.findings}


def test_planted_leaks_and_mistakes_are_all_found(tmp_path: Path) -> None:
    fact = Triplet("甲", "位于", "乙")
    train = write(
        tmp_path / "train.jsonl",
        Example("甲位于乙。", (fact,)),
        Example("甲位于乙。"),
        Example(LONG),
        Example("丙\ue313在丁", (Triplet("丙丙丙", "在", "丁"),)),
        Example("甲位于乙。", (fact,)),
    )
    dev = write(
        tmp_path / "dev.jsonl",
        Example("戊在己", (Triplet("戊", "在", "己"),)),
        Example("甲位于乙。", (fact,)),
        Example("甲位于乙！"),
        Example(LONG.replace("李彦宏", "李彦洪")),
    )
    report = check_files([train, dev])
    errors = {row for row in places(report) if SEVERITIES[row[0]] != "info"}
    assert errors == {
        ("duplicate_text", "train.jsonl", 2),
        ("contradictory_labels", "train.jsonl", 2),
        ("duplicate_text", "train.jsonl", 5),
        ("private_use_character", "train.jsonl", 4),
        ("item_not_in_text", "train.jsonl", 4),
        ("leak_exact", "dev.jsonl", 2),
        ("leak_normalised", "dev.jsonl", 3),
        ("duplicate_text", "dev.jsonl", 3),
        ("contradictory_labels", "dev.jsonl", 3),
        ("leak_near", "dev.jsonl", 4),
    }
    assert [file.num_examples for file in report.files] == [5, 4]


@pytest.mark.parametrize("name", ["x.tsv", "x.csv", "x.jsonl"])
def test_findings_in_grouped_rows_name_the_first_line_of_their_text(
    tmp_path: Path, name: str
) -> None:
    rows = [("甲", "乙", "r", "甲乙"), ("丙", "丁", "r", "丙丁"), ("戊", "癸", "r", "戊己")]
    rows += [("甲", "乙", "s", "甲乙"), ("庚", "子", "r", "庚辛")]
    names = ("subject", "object", "relation", "text")
    lines = {
        "x.tsv": ["\t".join(names), *("\t".join(row) for row in rows)],
        "x.csv": [",".join(names), *(",".join(row) for row in rows)],
        "x.jsonl": [json.dumps(dict(zip(names, row, strict=True))) for row in rows],
    }[name]
    path = tmp_path / name
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = [3, 5] if name == "x.jsonl" else [4, 6]
    report = check_files([path])
    assert [f.line for f in report.findings if f.kind == "item_not_in_text"] == expected


def test_findings_in_a_folder_of_documents_name_the_document(tmp_path: Path) -> None:
    for number, text in enumerate(("甲乙", "甲\ue313乙"), 1):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
        (tmp_path / f"{number}.ann").write_text("", encoding="utf-8")
    found = places(check_files([tmp_path]))
    assert ("private_use_character", "2.ann", 1) in found


def test_real_leaks_of_the_template_seed_are_found(shared_dir: Path) -> None:
    folder = shared_dir / "datasets" / "triplet_template_seed"
    report = check_files([folder / "train.jsonl", folder / "dev.jsonl"])
    # SOURCE.md: 39 validation inputs occur in train; 734 of 903 and 99 of 101 texts are distinct;
    # 177 of 368 pairs carry several relations.
    assert report.counts["leak_exact"] == 39
    assert report.counts["duplicate_text"] == (903 - 734) + 2
    assert (report.num_pairs, report.num_ambiguous_pairs) == (368, 177)
    assert report.counts["no_negatives"] == 2
    confused = {f.message.split("'")[1:4:2][0] for f in report.findings if f.kind[:5] == "confu"}
    assert {"位于", "任职"} <= confused


@pytest.mark.parametrize(
    ("name", "odd", "absent"),
    # SOURCE.md, columns "lines with odd characters" and "subject (object) in text".
    [
        ("cmeie/train.jsonl", 31, 0),
        ("cmeie/dev.jsonl", 4, 0),
        ("auto_fault/train.jsonl", 1, 0),
        ("duie2/train.jsonl", 1, 0),
        ("duie1/train.jsonl", 0, 7),
        ("chatglm_mixed_spo/train.jsonl", 0, 6),
        ("people_relation/train.jsonl", 0, 1),
        ("people_relation/dev.jsonl", 0, 1),
    ],
)
def test_known_noise_is_counted(shared_dir: Path, name: str, odd: int, absent: int) -> None:
    settings = CheckSettings(near_threshold=None)
    counts = check_files([shared_dir / "datasets" / name], settings).counts
    found = counts["private_use_character"] + counts["control_character"]
    assert (found, counts["item_not_in_text"]) == (odd, absent)


def test_schema_finds_unknown_relations_and_wrong_directions(tmp_path: Path) -> None:
    def build(relation: str, subject_type: str, object_type: str) -> Triplet:
        return Triplet("甲", relation, "乙", subject_type=subject_type, object_type=object_type)

    path = write(
        tmp_path / "x.jsonl",
        Example("甲乙", (build("作者", "书", "人"),)),
        Example("甲乙1", (build("作者", "人", "书"),)),
        Example("甲乙2", (build("作者", "书", "书"),)),
        Example("甲乙3", (build("编剧", "书", "人"),)),
    )
    schema = RelationSchema((Relation("作者", (("书", "人"),)),))
    report = check_files([path], CheckSettings(schema=schema))
    found = {row for row in places(report) if SEVERITIES[row[0]] != "info"}
    assert found == {
        ("reversed_direction", "x.jsonl", 2),
        ("wrong_types", "x.jsonl", 3),
        ("unknown_relation", "x.jsonl", 4),
    }


def test_few_triplets_against_the_usual_direction_are_found_without_schema(tmp_path: Path) -> None:
    usual = Triplet("甲", "作者", "乙", subject_type="书", object_type="人")
    turned = Triplet("乙", "作者", "甲", subject_type="人", object_type="书")
    examples = [Example(f"甲乙{i}", (usual,)) for i in range(30)] + [Example("甲乙", (turned,))]
    report = check_files([write(tmp_path / "x.jsonl", *examples)])
    assert report.counts["minority_direction"] == 1
    (finding,) = [f for f in report.findings if f.kind == "minority_direction"]
    assert finding.message == (
        "relation '作者' goes 人 -> 书 in 1 triplets and the other way round in 30"
    )


def test_lengths_are_counted_in_tokens_of_the_model(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl", Example("短"), Example("长" * 50, (Triplet("长", "r", "长长"),))
    )
    settings = CheckSettings(
        count_tokens=lambda example: (len(example.text) + 30, 7 * len(example.triplets)),
        max_prompt_tokens=79,
        max_target_tokens=5,
    )
    report = check_files([path], settings)
    assert dict(report.files[0].prompt_lengths) == {31: 1, 80: 1}
    assert dict(report.files[0].target_lengths) == {0: 1, 7: 1}
    messages = [f.message for f in report.findings if f.kind == "too_long_for_model"]
    assert messages == [
        "the prompt has 80 tokens, more than 79",
        "the target has 7 tokens, more than 5",
    ]


def test_unreadable_records_are_findings(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", Example("好"))
    path.write_bytes(path.read_bytes() + b'{"text": "\xff"}\n{"text": "a"}\n')
    report = check_files([path])
    assert report.counts["unreadable_record"] == 2
    lines = {f.line for f in report.findings if f.kind == "unreadable_record"}
    assert lines == {2, 3}


def test_listing_is_cut_but_counting_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *[Example("一样")] * 9)
    report = check_files([path], CheckSettings(max_listed=3))
    assert report.counts["duplicate_text"] == 8
    listed = [f.line for f in report.findings if f.kind == "duplicate_text"]
    assert listed == [2, 3, 4]


def test_report_is_the_same_in_every_process(tmp_path: Path) -> None:
    examples = [Example(f"文本{i % 40}") for i in range(100)]
    path = write(tmp_path / "x.jsonl", *examples)
    code = (
        "import sys, json; from tripletune.data.check import check_files; "
        "print(json.dumps(check_files([sys.argv[1]]).to_record()))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["counts"]["duplicate_text"] == 60


def test_each_file_is_needed_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", Example("a"))
    with pytest.raises(ConfigError, match="each file once"):
        check_files([path, path])
    with pytest.raises(ConfigError, match="each file once"):
        check_files([])
