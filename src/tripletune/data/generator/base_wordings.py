"""Wordings of the questions that the embedded base model is trained on."""

from __future__ import annotations

__all__ = [
    "ALL_ENTITIES",
    "COUNT_FACTS",
    "COUNT_PEOPLE",
    "ENTITIES_OF_A_TYPE",
    "FILL_IN",
    "LAYOUTS",
    "LIST_KINDS",
    "NOTHING",
    "OBJECT_QUESTIONS",
    "ONE_RELATION",
    "QUESTION_WORDS",
    "RELATION_OF_PAIR",
    "STATEMENTS",
    "SUBJECT_QUESTIONS",
    "TRUE_OR_FALSE",
    "TYPE_LABELS",
    "WRITE",
]

# {q}: the request, {t}: the text it is about. The layout of the triplet prompt, request, colon,
# line feed, text, is the most frequent one.
LAYOUTS = (
    *("{q}:\n{t}", "{q}:\n{t}", "{q}:\n{t}", "{q}：\n{t}", "{q}：\n{t}", "{q}：{t}", "{q}\n{t}"),
    *("{t}\n{q}", "{t}\n{q}。", "文本：{t}\n问题：{q}", "{q}。\n文本：{t}", "“{t}”{q}"),
    *("阅读：{t}\n{q}：", "{q}。\n\n{t}"),
)
NOTHING = ("没有提到", "没有提到", "文中没有提到", "未提及", "不知道")
ONE_RELATION = (
    *("只找出“{r}”这一种关系", "文中有哪些{r}信息", "抽出{r}，写成“主体：客体”", "仅列出{r}"),
    *("从中找{r}，其他不要", "把{r}整理出来，每行一个"),
)
OBJECT_QUESTIONS = (
    *("{s}的{n}是{w}？", "请问{s}的{n}是{w}", "{s}的{n}", "根据文本，{s}的{n}是{w}？"),
    *("谈到了{s}的{n}吗？是{w}？", "找出{s}的{n}", "{w}是{s}的{n}？"),
)
QUESTION_WORDS = {
    "人物": "谁",
    "城市": "哪里",
    "国家": "哪个国家",
    "日期": "什么时候",
    "学校": "哪所学校",
    "公司": "哪家公司",
    "出版社": "哪家出版社",
    "面积": "多少",
    "人口": "多少",
    "金额": "多少",
}
SUBJECT_QUESTIONS = (
    *("谁或什么的{n}是{o}？", "{n}为{o}的{a}是哪个", "{o}是哪个{a}的{n}？", "找出{n}是{o}的{a}"),
)
TYPE_LABELS = (
    *("人物", "公司", "学校", "地点", "国家", "图书", "影视作品", "歌曲", "专辑", "出版社", "奖项"),
    *("产品", "职业", "语言", "民族", "日期", "数量", "媒体"),
)
ENTITIES_OF_A_TYPE = (
    *(
        "列出文中的所有{a}",
        "文中提到了哪些{a}？",
        "找出{a}",
        "有哪些{a}",
        "把{a}都写出来，用顿号隔开",
    ),
)
ALL_ENTITIES = (
    *("列出所有实体及其类型", "文中有哪些实体？每行写“名称：类型”", "识别命名实体，注明类型"),
)
RELATION_OF_PAIR = (
    *("{s}和{o}是什么关系？", "说出{s}与{o}之间的关系", "{s}到{o}的关系叫什么", "{o}是{s}的什么？"),
    *("判断关系：{s}，{o}", "指出{s}对{o}的关系"),
)
STATEMENTS = ("{s}的{r}是{o}", "{s}的{r}为{o}", "{o}是{s}的{r}", "{s}，{r}，{o}")
TRUE_OR_FALSE = (
    ("“{c}”成立吗？", "是", "否"),
    ("判断对错：{c}", "对", "错"),
    ("文本是否说明{c}？", "是", "否"),
    ("下面的说法与文本一致吗：{c}", "一致", "不一致"),
)
FILL_IN = (*("已知{f}，句中{g}处应填什么", "补全{g}。提示：{f}", "根据“{f}”填空，{g}是什么"),)
WRITE = ("根据下面的事实写一段话", "用一句话说出这些信息", "把下列内容写成通顺的句子")
COUNT_FACTS = ("文中陈述了几个事实？", "一共有几条关系？")
COUNT_PEOPLE = ("文中提到几个人？", "有多少个人物？")
LIST_KINDS = ("人物", "人物", "公司", "学校", "城市", "图书", "歌曲", "奖项", "产品", "日期")
