"""Ways to write down all facts of a sentence, each with instructions that describe it.

None of them is the triplet format of `tripletune.data.linearize`: no line begins with a round
bracket. A model trained on them learns which facts a sentence states and to write what an
instruction describes; the triplet format itself is left for fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tripletune.data.generator.clauses import Fact
from tripletune.data.generator.domain import EntityType
from tripletune.data.generator.names import NameSource

__all__ = ["FORMATS", "FactFormat", "compose_format", "render_facts"]


@dataclass(frozen=True, slots=True)
class FactFormat:
    """One way to write facts.

    Attributes:
        instructions: What may be asked, all meaning this format.
        line: One fact, with `{s}`, `{r}`, `{o}` and, for types, `{a}` and `{b}`.
        joint: What stands between facts.
        opening: What stands before the first fact.
        closing: What stands behind the last one.
        empty: The answer when there is no fact.
        group: `subject` or `relation`: what facts share is written once, before a colon.
    """

    instructions: tuple[str, ...]
    line: str
    joint: str = "\n"
    opening: str = ""
    closing: str = ""
    empty: str = "没有提到"
    group: str = ""


_JSON_EMPTY = "[]"

FORMATS = (
    FactFormat(
        (
            "请写出文中每条事实的主体、关系和客体，每行一条",
            "列出句子里的全部事实，写成“主体：…；关系：…；客体：…”",
            "把下面句子中的事实逐条写出，注明主体、关系、客体",
        ),
        "主体：{s}；关系：{r}；客体：{o}",
    ),
    FactFormat(
        (
            "把文中的事实写成JSON列表，键为主体、关系、客体",
            "用JSON表示下面文本中的所有关系",
            "请以JSON数组输出事实，每个对象包含“主体”“关系”“客体”",
        ),
        '{{"主体": "{s}", "关系": "{r}", "客体": "{o}"}}',
        joint=", ",
        opening="[",
        closing="]",
        empty=_JSON_EMPTY,
    ),
    FactFormat(
        (
            "输出JSON，键为subject、relation、object",
            "Extract every fact as JSON with subject, relation and object",
            "把事实转成JSON列表（subject/relation/object）",
        ),
        '{{"subject": "{s}", "relation": "{r}", "object": "{o}"}}',
        joint=", ",
        opening="[",
        closing="]",
        empty=_JSON_EMPTY,
    ),
    FactFormat(
        (
            "用箭头表示文中的关系：主体 -> 关系 -> 客体",
            "把每条事实写成“甲 -> 关系 -> 乙”的形式",
            "请用箭头图列出文本里的所有事实",
        ),
        "{s} -> {r} -> {o}",
    ),
    FactFormat(
        (
            "把每条事实改写成“某某的某关系是某某”",
            "用最简单的句子复述文中的事实，中间用分号隔开",
            "请把这段话拆成简单陈述",
        ),
        "{s}的{r}是{o}",
        joint="；",
        closing="。",
        empty="没有可以改写的事实。",
    ),
    FactFormat(
        (
            "画出知识图谱的边，写成“主体 —[关系]→ 客体”",
            "列出图中的边：主体 —[关系]→ 客体",
            "把文本转成有向图的边",
        ),
        "{s} —[{r}]→ {o}",
        empty="没有边",
    ),
    FactFormat(
        (
            "做一张表，列为主体、关系、客体，用竖线分隔",
            "把事实填入表格，每行“主体 | 关系 | 客体”",
            "整理成竖线分隔的三列表格",
        ),
        "{s} | {r} | {o}",
        empty="空表",
    ),
    FactFormat(
        (
            "用制表符分隔，每行写出主体、关系、客体",
            "输出TSV：主体、关系、客体三列",
        ),
        "{s}\t{r}\t{o}",
        empty="空表",
    ),
    FactFormat(
        (
            "用谓词逻辑表示事实，形如 关系[主体, 客体]",
            "把每条事实写成谓词：关系[主体, 客体]",
        ),
        "{r}[{s}, {o}]",
    ),
    FactFormat(
        (
            "给文中的事实编号，依次写出主体、关系、客体",
            "按顺序编号列出所有事实",
        ),
        "{n}. {s}，{r}，{o}",
        empty="0条",
    ),
    FactFormat(
        (
            "用XML标签标出每条事实的主体、关系、客体",
            "把事实写成<主体></主体><关系></关系><客体></客体>",
        ),
        "<主体>{s}</主体><关系>{r}</关系><客体>{o}</客体>",
        empty="<空/>",
    ),
    FactFormat(
        (
            "把文中的事实改写成问答，每行一问一答",
            "根据这段话写出所有问答对",
        ),
        "问：{s}的{r}是什么？答：{o}",
        empty="没有可问的内容",
    ),
    FactFormat(
        (
            "从客体指向主体，写成“客体 <- 关系 <- 主体”",
            "用反向箭头列出所有事实：客体 <- 关系 <- 主体",
        ),
        "{o} <- {r} <- {s}",
    ),
    FactFormat(
        (
            "写出每条事实以及主体和客体的类型",
            "列出事实，实体后面用方括号注明类型",
        ),
        "{s}[{a}] - {r} - {o}[{b}]",
    ),
    FactFormat(
        (
            "按主体整理文中的信息，每行一个主体",
            "为每个实体写一行属性，形如“主体：关系=客体，关系=客体”",
            "整理实体卡片：主体：关系=客体",
        ),
        "{r}={o}",
        joint="，",
        group="subject",
    ),
    FactFormat(
        (
            "按关系整理文中的信息，每行一种关系",
            "每种关系写一行，形如“关系：主体-客体，主体-客体”",
        ),
        "{s}-{o}",
        joint="，",
        group="relation",
    ),
    FactFormat(
        (
            "先写关系，再写主体和客体，用冒号和加号连接",
            "格式：关系:主体+客体",
        ),
        "{r}:{s}+{o}",
    ),
    FactFormat(
        (
            "用RDF风格写出事实，每行以句点结尾",
            "转换为RDF语句：<主体> <关系> <客体> .",
        ),
        "<{s}> <{r}> <{o}> .",
    ),
    FactFormat(
        (
            "用YAML写出事实列表",
            "输出YAML，每项包含主体、关系、客体",
        ),
        "- 主体: {s}\n  关系: {r}\n  客体: {o}",
        empty=_JSON_EMPTY,
    ),
    FactFormat(
        (
            "写出所有事实对应的Cypher边",
            "转换成图数据库的边：[主体]-[:关系]->[客体]",
        ),
        "[{s}]-[:{r}]->[{o}]",
        empty="没有边",
    ),
)

_BRACKETS = (("[", "]"), ("【", "】"), ("<", ">"), ("{", "}"), ("「", "」"), ("", ""), ("“", "”"))
_SEPARATORS = (
    "|",
    " | ",
    ";",
    "；",
    "/",
    " / ",
    "->",
    "=>",
    " => ",
    "#",
    "、",
    ", ",
    "，",
    "~",
    "::",
)
_ORDERS = ("sro", "sro", "sro", "sro", "sor", "rso", "ors")
_FIELDS = (
    {"s": "主体", "r": "关系", "o": "客体"},
    {"s": "主体", "r": "关系", "o": "客体"},
    {"s": "实体1", "r": "关系", "o": "实体2"},
    {"s": "主语", "r": "谓语", "o": "宾语"},
    {"s": "头", "r": "边", "o": "尾"},
    {"s": "起点", "r": "关系", "o": "终点"},
)
_REQUESTS = (
    "请按{f}的格式写出文中的全部事实",
    "从下面的文字中找出所有事实，每行一条，格式为{f}",
    "请提取以下句子里的关系，写成{f}",
    "阅读文本，按{f}列出其中的知识",
    "请抽取文中的实体关系，输出格式：{f}",
    "识别文本中的关系，以{f}的形式回答",
)
_EMPTIES = ("没有提到", "没有", "未找到", "没有相关内容")


def compose_format(names: NameSource) -> FactFormat:
    """A format put together from brackets, a separator, an order and names of the fields."""
    opening, closing = names.pick(_BRACKETS)
    separator, order = names.pick(_SEPARATORS), names.pick(_ORDERS)
    fields = names.pick(_FIELDS)
    shown = opening + separator.join([fields[letter] for letter in order]) + closing
    line = separator.join(["{" + letter + "}" for letter in order])
    start, end = (part.replace("{", "{{").replace("}", "}}") for part in (opening, closing))
    return FactFormat(
        (names.pick(_REQUESTS).replace("{f}", shown),),
        start + line + end,
        empty=names.pick(_EMPTIES),
    )


def render_facts(form: FactFormat, facts: Sequence[Fact], types: Mapping[str, EntityType]) -> str:
    """The facts in a format, in the order given."""
    if not facts:
        return form.empty
    line = form.line
    if form.group:
        return _render_groups(form, facts)
    if "{a}" in line:
        lines = [
            line.format(
                s=subject,
                r=relation.name,
                o=object_,
                a=types[relation.subject_type].label,
                b=types[relation.object_type].label,
            )
            for subject, relation, object_ in facts
        ]
    else:
        lines = [
            line.format(s=subject, r=relation.name, o=object_, n=number)
            for number, (subject, relation, object_) in enumerate(facts, 1)
        ]
    return form.opening + form.joint.join(lines) + form.closing


def _render_groups(form: FactFormat, facts: Sequence[Fact]) -> str:
    groups: dict[str, list[str]] = {}
    for subject, relation, object_ in facts:
        key = subject if form.group == "subject" else relation.name
        item = form.line.format(s=subject, r=relation.name, o=object_)
        groups.setdefault(key, []).append(item)
    return "\n".join([f"{key}：{form.joint.join(items)}" for key, items in groups.items()])
