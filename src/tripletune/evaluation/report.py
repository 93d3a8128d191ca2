"""An `Evaluation` as one HTML file, as Markdown and as JSON.

The HTML file needs no network: styles and charts are inside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tripletune.errors import OutputError
from tripletune.evaluation.charts import Plot, make_reliability_points, make_threshold_lines
from tripletune.evaluation.counts import Counts
from tripletune.evaluation.error_classes import ERROR_CLASSES
from tripletune.evaluation.highlight import split_text
from tripletune.evaluation.labels import ERROR_LABELS, RULE_LABELS
from tripletune.evaluation.scoring import Evaluation
from tripletune.evaluation.spans import Key

__all__ = ["render_html", "render_markdown", "write_report"]

DEFAULT_TITLE = "三元组抽取评测报告"

_UNDEFINED = "未定义"
_MAX_RELATIONS_SHOWN = 25
_MAX_CONFUSED = 12
_MAX_CONFUSIONS_LISTED = 10


def write_report(
    evaluation: Evaluation, path: str | Path, *, title: str = DEFAULT_TITLE
) -> list[Path]:
    """The files written: one for a path ending in .html, .md or .json, else all three in a folder.

    Args:
        evaluation: What `evaluate` returned.
        path: A file, or a folder in which `report.html`, `report.md` and `report.json` are made.
        title: The heading.

    Raises:
        OutputError: a file cannot be written.
    """
    target = Path(path)
    is_file = target.suffix.lower() in (".html", ".htm", ".md", ".json") and not target.is_dir()
    paths = [target] if is_file else [target / f"report.{kind}" for kind in ("html", "md", "json")]
    try:
        for file_path in paths:
            file_path.parent.mkdir(parents=True, exist_ok=True)
            content = _render(evaluation, file_path.suffix.lower(), title)
            # Half a surrogate pair in a text has no UTF-8 form; it is shown as its escape.
            file_path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(
            f"report {str(path)!r} cannot be written: {error.strerror}; choose another path"
        ) from error
    return paths


def _render(evaluation: Evaluation, suffix: str, title: str) -> str:
    if suffix == ".json":
        return json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2) + "\n"
    if suffix == ".md":
        return render_markdown(evaluation, title=title)
    return render_html(evaluation, title=title)


def render_html(evaluation: Evaluation, *, title: str = DEFAULT_TITLE) -> str:
    """The report as a whole HTML document."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = _show_score
    environment.filters["percent"] = _show_percent
    environment.filters["number"] = _show_number
    return environment.get_template("report.html.j2").render(
        title=title,
        evaluation=evaluation,
        rules=[
            (RULE_LABELS[rule], counts, evaluation.intervals[rule])
            for rule, counts in evaluation.scores.items()
        ],
        relations=list(evaluation.by_relation.items()),
        num_relations_shown=_MAX_RELATIONS_SHOWN,
        confusion=_make_confusion(evaluation),
        error_rows=_make_error_rows(evaluation),
        calibration=_make_calibration(evaluation),
        breakdowns=[
            ("按文本长度", "by text length", "字", evaluation.by_length),
            ("按三元组数", "by gold triplets per text", "个", evaluation.by_num_triplets),
        ],
        worst=[
            {
                "segments": split_text(
                    result.text,
                    {"correct": result.correct, "missed": result.missed, "wrong": result.wrong},
                ),
                "result": result,
            }
            for result in evaluation.worst
        ],
    )


def _make_confusion(evaluation: Evaluation) -> dict[str, Any]:
    """The most confused relations as a matrix, gold by predicted, and the confusions by number."""
    confusion = evaluation.errors.confusion
    weights: dict[str, int] = {}
    for pair, count in confusion.items():
        for relation in pair:
            weights[relation] = weights.get(relation, 0) + count
    names = sorted(weights, key=lambda name: (-weights[name], name))[:_MAX_CONFUSED]
    largest = max(confusion.values(), default=1)
    rows = []
    for gold in names:
        cells = []
        for predicted in names:
            is_right = gold == predicted
            count = (
                int(evaluation.by_relation[gold].num_correct)
                if is_right and gold in evaluation.by_relation
                else confusion[gold, predicted]
            )
            shade = 0.0 if is_right or not count else 0.2 + 0.6 * math.sqrt(count / largest)
            cells.append({"count": count, "is_right": is_right, "shade": round(shade, 3)})
        rows.append((gold, cells))
    ordered = sorted(confusion.items(), key=lambda item: (-item[1], item[0]))
    return {"names": names, "rows": rows, "top": ordered[:_MAX_CONFUSIONS_LISTED]}


def _make_error_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    errors = evaluation.errors
    largest = max([*errors.num_wrong.values(), *errors.num_missed.values(), 1])
    rows = []
    for name in ERROR_CLASSES:
        is_unchecked = name == "relation_not_in_schema" and not evaluation.has_schema
        rows.append(
            {
                "label": ERROR_LABELS[name],
                "num_wrong": errors.num_wrong[name],
                "num_missed": errors.num_missed[name],
                "wrong_percent": 100 * errors.num_wrong[name] / largest,
                "missed_percent": 100 * errors.num_missed[name] / largest,
                "is_unchecked": is_unchecked,
                "examples": [
                    {
                        "segments": split_text(
                            text, {"missed": _listed(error.gold), "wrong": _listed(error.predicted)}
                        ),
                        "error": error,
                    }
                    for text, error in errors.examples.get(name, [])
                ],
            }
        )
    return rows


def _make_calibration(evaluation: Evaluation) -> dict[str, Any] | None:
    calibration = evaluation.calibration
    if calibration is None:
        return None
    plot = Plot()
    points = make_reliability_points(calibration, plot)
    best = calibration.best
    return {
        "data": calibration,
        "plot": plot,
        "ticks": (0.0, 0.25, 0.5, 0.75, 1.0),
        "points": points,
        "line": " ".join(f"{point.x},{point.y}" for point in points),
        "lines": make_threshold_lines(calibration, plot),
        "best": best,
    }


def _listed(key: Key | None) -> Sequence[Key]:
    return () if key is None else (key,)


def _show_score(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.4f}"


def _show_percent(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{100 * value:.1f}%"


def _show_number(value: float) -> str:
    return (
        f"{value:,.1f}" if isinstance(value, float) and not value.is_integer() else f"{value:,.0f}"
    )


def render_markdown(evaluation: Evaluation, *, title: str = DEFAULT_TITLE) -> str:
    """The report as Markdown with tables."""
    pairing, macro = evaluation.pairing, evaluation.macro
    lines = [f"# {_escape_cell(title)}", ""]
    lines += [
        f"{evaluation.num_texts} 条文本，完全匹配 {_show_percent(evaluation.exact_match)}；"
        f"宏平均 F1 {_show_score(macro.f1)}（{macro.num_relations} 个关系）。",
        "",
    ]
    if pairing.only_gold or pairing.only_predicted or pairing.differing_texts:
        lines += [
            f"注意：{len(pairing.only_gold)} 条标注没有预测，{len(pairing.only_predicted)} 条预测"
            f"没有标注，都按空计；{len(pairing.differing_texts)} 条 id 相同而文本不同。",
            "",
        ]
    rules = (
        (RULE_LABELS[rule].chinese, counts, _show_interval(evaluation, rule))
        for rule, counts in evaluation.scores.items()
    )
    lines += _render_table(
        ("规则", "精确率", "召回率", "F1", "F1 置信区间", "标注", "预测", "正确"),
        (
            (name, *_score_cells(counts), interval, *_number_cells(counts))
            for name, counts, interval in rules
        ),
    )
    return "\n".join(lines + _render_breakdowns(evaluation))


def _render_breakdowns(evaluation: Evaluation) -> list[str]:
    lines = ["## 各关系", ""]
    lines += _render_table(
        ("关系", "精确率", "召回率", "F1", "标注", "预测", "正确"),
        (
            (name, *_score_cells(counts), *_number_cells(counts))
            for name, counts in evaluation.by_relation.items()
        ),
    )
    lines += ["## 错误类型", ""]
    lines += _render_table(
        ("类型", "错误预测", "因此漏抽", "例子"),
        (
            (
                ERROR_LABELS[name].chinese,
                str(evaluation.errors.num_wrong[name]),
                str(evaluation.errors.num_missed[name]),
                _show_example(evaluation, name),
            )
            for name in ERROR_CLASSES
        ),
    )
    for heading, buckets in (
        ("## 按文本长度（字）", evaluation.by_length),
        ("## 按标注三元组数", evaluation.by_num_triplets),
    ):
        lines += [heading, ""]
        lines += _render_table(
            ("组", "文本", "精确率", "召回率", "F1"),
            ((b.label, str(b.num_texts), *_score_cells(b.counts)) for b in buckets),
        )
    return lines


def _show_interval(evaluation: Evaluation, rule: str) -> str:
    interval = evaluation.intervals[rule].f1
    return _UNDEFINED if interval is None else f"{interval.low:.4f}–{interval.high:.4f}"


def _show_example(evaluation: Evaluation, name: str) -> str:
    examples = evaluation.errors.examples.get(name, [])
    if not examples:
        return ""
    error = examples[0][1]
    shown = [f"预测 ({', '.join(error.predicted)})"] if error.predicted else []
    shown += [f"标注 ({', '.join(error.gold)})"] if error.gold else []
    return "；".join(shown) or error.output


def _score_cells(counts: Counts) -> tuple[str, str, str]:
    return (_show_score(counts.precision), _show_score(counts.recall), _show_score(counts.f1))


def _number_cells(counts: Counts) -> tuple[str, str, str]:
    return (str(counts.num_gold), str(counts.num_predicted), str(counts.num_correct))


def _render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(map(_escape_cell, row)) for row in rows]
    return [f"| {line} |" for line in lines] + [""]


def _escape_cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())
