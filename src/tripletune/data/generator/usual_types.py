"""Types of entities as published schemas call them, and the kind of names that fits each.

Covers DuIE 1.0 and 2.0, IEPile and common annotation tools; a type of a user's schema that is
neither here nor described in templates gets names of the kind `专名`.
"""

from __future__ import annotations

__all__ = ["ANY_KIND", "find_kind"]

ANY_KIND = "专名"
"""The kind of names for a type of which nothing is known."""

_TYPES_BY_KIND = {
    "人物": "历史人物 娱乐人物 人名 演员 歌手 作家 作者 导演 学者 运动员 person per",
    "公司": "企业 机构 组织 组织机构 企业/品牌 品牌 团体 organization organisation org company",
    "学校": "大学 高校 院校 school university",
    "城市": "地点 地名 行政区 省份 景点 位置 location loc place gpe city",
    "国家": "country",
    "图书": "图书作品 文学作品 书籍 书 小说 网络小说 作品 book",
    "影视作品": "电视综艺 综艺 电影 电视剧 影视 节目 film movie",
    "歌曲": "音乐作品 音乐 song",
    "专辑": "音乐专辑 album",
    "媒体": "网站 报纸 杂志",
    "奖项": "奖 award",
    "产品": "商品 product",
    "职业": "职位 职务 title",
    "日期": "时间 年份 date time year",
    "数字": "数值 数量 number num",
    "金额": "钱 money",
}
_KINDS = {name: kind for kind, names in _TYPES_BY_KIND.items() for name in names.split()}


def find_kind(type_name: str) -> str:
    """The kind of names for a type.

    Example:
        >>> find_kind("图书作品"), find_kind("Number"), find_kind("气候")
        ('图书', '数字', '专名')
    """
    return _KINDS.get(type_name.strip().casefold(), ANY_KIND)
