from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from tripletune.errors import OutputError
from tripletune.evaluation import Settings, evaluate, render_html, render_markdown, write_report
from tripletune.schema import Example, Extraction, Triplet

VOID = {"meta", "br", "line", "polyline", "circle", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting and collects what is in a page."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text, self.links = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def find(self, name):
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]


def example(text, *triplets):
    return Example(text, tuple(Triplet(*triplet) for triplet in triplets))


GOLD = [
    example("张三毕业于北京大学。", ("张三", "毕业院校", "北京大学")),
    example("李四导演了《归来》。", ("李四", "导演", "归来")),
    example("王五 <b>在</b> & 上海。", ("王五", "位于", "上海")),
]
PREDICTED = [
    Extraction("张三毕业于北京大学。", (Triplet("张三", "毕业院校", "北京", confidence=0.6),)),
    Extraction(
        "李四导演了《归来》。",
        (Triplet("李四", "编剧", "归来", confidence=0.4),),
        problems=("'(李四, 归来)' has 2 items, not 3",),
    ),
    Extraction("没有标注的一句。", ()),
]


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(GOLD, PREDICTED)


@pytest.fixture(scope="module")
def page(evaluation):
    return Page(render_html(evaluation, title="一 & 二"))


def test_render_html_is_well_nested_and_loads_nothing(page):
    assert page.open == []
    assert page.links == []
    assert [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")] == []


def test_render_html_shows_title_and_scores(page):
    text = " ".join("".join(page.text).split())
    assert "一 & 二" in text
    assert "0.0000" in text
    # No prediction for the third text, no gold row for the last one.
    assert "1 条标注没有对应的预测" in text
    assert "1 条预测没有对应的标注" in text


def test_render_html_marks_missed_and_wrong_entities(page):
    classes = [
        attrs["class"].split() for tag, attrs in page.tags if tag == "span" and "class" in attrs
    ]
    assert ["m-missed", "m-wrong"] in classes
    assert ["m-missed"] in classes


def test_render_html_escapes_text(evaluation):
    html = render_html(evaluation)
    assert "&lt;b&gt;" in html
    assert "<b>在" not in html


def test_render_html_shows_the_confused_relations(page):
    assert len(page.find("matrix")) == 1
    text = "".join(page.text)
    assert "导演" in text
    assert "编剧" in text


def test_render_html_draws_calibration_only_with_confidences(page):
    assert len([tag for tag, _ in page.tags if tag == "polyline"]) == 4
    without = Page(render_html(evaluate(GOLD, GOLD)))
    assert [tag for tag, _ in without.tags if tag == "polyline"] == []


def test_render_html_says_when_the_schema_was_not_checked(page):
    assert "未检查：没有给出关系模式" in "".join(page.text)
    checked = Page(render_html(evaluate(GOLD, PREDICTED, settings=Settings(schema={"导演"}))))
    assert "未检查" not in "".join(checked.text)


def test_render_html_of_nothing_is_undefined():
    page = Page(render_html(evaluate([], [])))
    assert page.open == []
    assert "未定义" in "".join(page.text)


def test_render_html_of_perfect_predictions_has_no_worst_sentence():
    assert "每一句都完全正确。" in "".join(Page(render_html(evaluate(GOLD, GOLD))).text)


def test_render_markdown_has_the_tables(evaluation):
    lines = render_markdown(evaluation, title="一|二").split("\n")
    assert lines[0] == "# 一\\|二"
    assert "| 严格匹配 | 0.0000 | 0.0000 | 0.0000 | 0.0000–0.0000 | 3 | 2 | 0 |" in lines
    assert (
        "| 边界过短 | 1 | 1 | 预测 (张三, 毕业院校, 北京)；标注 (张三, 毕业院校, 北京大学) |"
        in lines
    )
    assert "| 无法解析 | 1 | 0 | '(李四, 归来)' has 2 items, not 3 |" in lines
    assert "| 导演 | 未定义 | 0.0000 | 0.0000 | 1 | 0 | 0 |" in lines


def test_render_markdown_keeps_a_cell_in_its_place():
    gold = [example("甲|乙\n丙", ("甲|乙", "在\n于", "丙"))]
    lines = render_markdown(evaluate(gold, [])).split("\n")
    assert "| 在 于 | 未定义 | 0.0000 | 0.0000 | 1 | 0 | 0 |" in lines
    assert any("甲\\|乙" in line for line in lines)


def test_write_report_fills_a_folder(tmp_path, evaluation):
    paths = write_report(evaluation, tmp_path / "new" / "v1.0")
    assert [path.name for path in paths] == ["report.html", "report.md", "report.json"]
    record = json.loads(paths[2].read_text(encoding="utf-8"))
    assert record == evaluation.to_dict()
    assert list(record)[:6] == [
        "strict",
        "duie",
        "normalised",
        "partial",
        "relation_only",
        "entity_pairs",
    ]


@pytest.mark.parametrize("name", ["x.html", "x.md", "x.json"])
def test_write_report_writes_one_file_of_a_known_kind(tmp_path, evaluation, name):
    assert write_report(evaluation, tmp_path / name) == [tmp_path / name]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_write_report_shows_half_a_surrogate_pair_escaped(tmp_path):
    text = "甲\ud83d在乙"
    (path,) = write_report(evaluate([example(text, ("甲", "在", "乙"))], []), tmp_path / "x.html")
    assert "\\ud83d" in path.read_text(encoding="utf-8")


def test_write_report_names_a_path_that_cannot_be_written(tmp_path, evaluation):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"report '.*file/x\.html' cannot be written"):
        write_report(evaluation, tmp_path / "file" / "x.html")
