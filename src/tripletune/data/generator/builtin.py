"""The domain that comes with the package: 13 types of entities and their relations."""

from __future__ import annotations

from functools import cache

from tripletune.data.generator.domain import Domain, EntityType
from tripletune.data.generator.relations_organisation import (
    ORGANISATION_RELATIONS,
    PLACE_RELATIONS,
)
from tripletune.data.generator.relations_person import PERSON_RELATIONS
from tripletune.data.generator.relations_work import WORK_RELATIONS

__all__ = ["build_default_domain"]

_PERSON_NEUTRAL = (
    *("最近很受关注", "昨天接受了采访", "正在外地休假", "心情不错", "没有回应外界的猜测"),
    *("每天坚持跑步", "喜欢在周末下棋", "正在准备下个月的活动", "说话很幽默", "对未来充满信心"),
    *("平时话不多", "在业内口碑很好", "昨晚睡得很早", "身体恢复得很快"),
)
_COMPANY_NEUTRAL = (
    *("近期业务增长很快", "正在招聘新员工", "今年的利润有所下降", "对市场前景表示乐观"),
    *("昨天召开了股东大会", "的股价连续三天上涨", "否认了裁员的传闻", "正在寻找新的合作伙伴"),
)
_SCHOOL_NEUTRAL = (
    *("今年扩大了招生规模", "的食堂很受欢迎", "正在举办运动会", "昨天迎来了新生"),
    *("新建了一座图书馆", "的校园里种满了樱花", "近日举行了毕业典礼"),
)
_PLACE_NEUTRAL = (
    *("今天天气晴朗", "的夜景十分迷人", "最近游客很多", "的小吃远近闻名", "昨夜下了一场大雨"),
    *("的交通越来越方便", "正在修建地铁", "的秋天很美"),
)
_WORK_NEUTRAL = (
    *("很受欢迎", "口碑不错", "让人回味无穷", "引发了热烈讨论", "的评价两极分化", "打动了很多人"),
    *("值得细细品味", "的结尾出人意料"),
)

_TYPES = (
    EntityType("人物", "人物", "人物", "{}", ("他", "她", "其"), _PERSON_NEUTRAL),
    EntityType(
        "公司", "公司", "公司", "{}", ("该公司", "公司", "这家公司", "该企业"), _COMPANY_NEUTRAL
    ),
    EntityType("学校", "学校", "学校", "{}", ("该校", "学校", "这所学校"), _SCHOOL_NEUTRAL),
    EntityType("城市", "地点", "城市", "{}", ("该地", "当地", "这里"), _PLACE_NEUTRAL),
    EntityType("虚构国家", "国家", "虚构国家", "{}", ("该国", "这个国家"), _PLACE_NEUTRAL),
    EntityType("国家", "国家", "国家"),
    EntityType("图书", "图书", "图书", "《{}》", ("该书", "这本书", "此书"), _WORK_NEUTRAL),
    EntityType(
        "影视作品", "影视作品", "影视作品", "《{}》", ("该片", "影片", "这部作品"), _WORK_NEUTRAL
    ),
    EntityType("歌曲", "歌曲", "歌曲", "《{}》", ("这首歌", "该曲", "歌曲"), _WORK_NEUTRAL),
    EntityType("专辑", "专辑", "专辑", "《{}》", ("该专辑", "这张专辑"), _WORK_NEUTRAL),
    EntityType("出版社", "出版社", "出版社"),
    EntityType("媒体", "媒体", "媒体"),
    EntityType("奖项", "奖项", "奖项"),
    EntityType("产品", "产品", "产品"),
    EntityType("职业", "职业", "职业"),
    EntityType("语言", "语言", "语言"),
    EntityType("民族", "民族", "民族"),
    EntityType("日期", "日期", "日期"),
    EntityType("面积", "数量", "面积"),
    EntityType("人口", "数量", "人口"),
    EntityType("金额", "数量", "金额"),
)


@cache
def build_default_domain() -> Domain:
    """People, companies, schools, places, countries, books, films, songs and albums."""
    return Domain(
        {entity_type.name: entity_type for entity_type in _TYPES},
        PERSON_RELATIONS + ORGANISATION_RELATIONS + PLACE_RELATIONS + WORK_RELATIONS,
    )
