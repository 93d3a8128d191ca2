from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tripletune.data.check import CheckReport, CheckSettings, check_files
from tripletune.data.report_page import Bar, build_bars, render_page, write_page
from tripletune.schema import Example, Triplet

EVIL = "<script>alert(1)</script>&\"'"


def build_report(folder: Path) -> CheckReport:
    path = folder / "x.jsonl"
    example = Example("甲位于乙", (Triplet("甲", EVIL, "丙"), Triplet("乙", EVIL, "甲")))
    path.write_text(example.to_json() + "\n" + Example("空").to_json() + "\n", encoding="utf-8")
    return check_files([path], CheckSettings(count_tokens=lambda example: (len(example.text), 1)))


def test_page_is_well_formed_and_escapes_what_comes_from_the_data(tmp_path: Path) -> None:
    page = render_page(build_report(tmp_path))
    assert "<script" not in page
    body = page[page.index("<body>") : page.index("</html>")]
    root = ElementTree.fromstring(body)
    assert EVIL in "".join(root.itertext())
    assert len(root.findall(".//svg")) == 6
    assert all(float(rect.attrib["width"]) >= 0 for rect in root.iter("rect"))


def test_page_lists_findings_and_figures(tmp_path: Path) -> None:
    write_page(build_report(tmp_path), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "项不在文本中</a> <code>item_not_in_text</code>" in page
    assert "x.jsonl:1" in page
    assert "2 条样本，2 个三元组" in page


def test_page_says_when_it_does_not_list_all_and_shortens_paths(tmp_path: Path) -> None:
    paths = [tmp_path / name / "x.jsonl" for name in ("a", "b")]
    lines = "".join(Example(f"甲{number}。\x01").to_json() + "\n" for number in range(5))
    for path in paths:
        path.parent.mkdir()
        path.write_text(lines, encoding="utf-8")
    page = render_page(check_files(paths, CheckSettings(max_listed=2, near_threshold=None)))
    assert "<code>control_character</code> (10，列出前 2 个)" in page
    assert f'<td title="{paths[1]}">b/x.jsonl:1</td>' in page


def test_page_shows_how_often_the_subject_comes_first(tmp_path: Path) -> None:
    before, after = Triplet("甲", "位于", "乙"), Triplet("乙", "位于", "甲")
    lines = [Example(f"甲位于乙{number}", (before,)).to_json() for number in range(2)]
    lines.append(Example("甲位于乙呢", (after,)).to_json())
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert ">67 %</text>" in render_page(check_files([tmp_path / "x.jsonl"]))


def test_page_of_nothing_found_says_so() -> None:
    assert "没有发现问题" in render_page(CheckReport())


def test_bars_have_classes_of_equal_width() -> None:
    assert build_bars({3: 1, 4: 2, 9: 4}, max_bars=4) == [
        Bar("3-4", 3, 0.75),
        Bar("5-6", 0, 0.0),
        Bar("7-8", 0, 0.0),
        Bar("9-10", 4, 1.0),
    ]
    assert build_bars({}) == []
