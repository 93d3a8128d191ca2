"""What rules and error classes are called in reports: (Chinese, English, explanation)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ERROR_LABELS", "RULE_LABELS", "Label"]


class Label(NamedTuple):
    """A name in both languages, and one Chinese sentence that explains it."""

    chinese: str
    english: str
    explanation: str


RULE_LABELS = {
    "strict": Label("严格匹配", "strict", "主体、关系、客体逐字相同"),
    "duie": Label("DuIE 2.0 官方规则", "duie", "不分大小写，去掉一对《》，所有客体槽位都要相同"),
    "normalised": Label("归一化匹配", "normalised", "统一全角半角，忽略空白与引号"),
    "partial": Label("部分匹配", "partial", "关系相同且实体在原文中有重叠的计半分"),
    "relation_only": Label("仅关系", "relation only", "只看每句话有哪些关系"),
    "entity_pairs": Label("仅实体对", "entity pairs", "只看主体与客体，不看关系"),
}
"""Labels of the matching rules."""

ERROR_LABELS = {
    "unparseable": Label("无法解析", "unparseable", "模型输出的这一段不是三元组"),
    "relation_not_in_schema": Label(
        "关系不在模式中", "relation not in schema", "给定的模式里没有这个关系"
    ),
    "swapped_direction": Label("方向颠倒", "swapped direction", "主体与客体写反了"),
    "wrong_relation": Label("关系错误", "wrong relation", "实体对正确，关系不对"),
    "entity_not_in_text": Label("实体不在原文", "entity not in text", "主体或客体在原文中找不到"),
    "boundary_too_long": Label("边界过长", "boundary too long", "实体包含了标注并多出一些字"),
    "boundary_too_short": Label("边界过短", "boundary too short", "实体缺少标注中的一些字"),
    "spurious": Label("多余", "spurious", "标注中没有与之相近的三元组"),
    "missed": Label("遗漏", "missed", "标注的三元组没有被预测出来"),
}
"""Labels of the error classes."""
