"""What stands around facts, and sentences that state none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tripletune.data.generator.domain import Domain
from tripletune.data.generator.names import NameSource
from tripletune.data.generator.world import InventedWorld

if TYPE_CHECKING:
    from tripletune.data.generator.clauses import ClauseWriter, Mention
    from tripletune.data.generator.sentences import Difficulty

__all__ = ["Surroundings"]

_OPENERS = (
    *(
        "据介绍，",
        "据了解，",
        "公开资料显示，",
        "众所周知，",
        "资料显示，",
        "值得一提的是，",
        "事实上，",
    ),
    *(
        "据百科记载，",
        "很多人不知道，",
        "大家都知道，",
        "简单来说，",
        "据统计资料，",
        "顺便说一句，",
    ),
    *(
        "从履历来看，",
        "我在网上查到，",
        "新闻里说，",
        "老师告诉我们，",
        "听说过吗？",
        "先说一个事实：",
    ),
)
_CLOSERS = (
    *("，引起了广泛关注", "，这一点很多人都知道", "，消息一出便成为热门话题", "，网友纷纷点赞"),
    *(
        "，真让人意想不到",
        "，这在当时并不常见",
        "，我也是最近才知道的",
        "，令人印象深刻",
        "，可谓家喻户晓",
    ),
)
# {人物} and the like are names of types; each stands for a new entity that takes part in no fact.
_DISTRACTING_OPENERS = (
    *("据{媒体}报道，", "{媒体}的文章写道，", "{人物}在采访中提到，", "{人物}告诉{媒体}，"),
    *("在{城市}举行的论坛上，有人介绍，", "记者从{城市}获悉，", "{人物}在书中这样写道："),
    *("{媒体}{日期}的消息称，", "聊起往事，{人物}说，"),
)
_DISTRACTING_CLOSERS = (
    *("，{人物}对此表示祝贺", "，{媒体}对此作了报道", "，{人物}也听说了这件事", "，这与{人物}无关"),
    *("，{人物}在{城市}得知了这一消息",),
)
_MEETINGS = (
    *("{人物}和{人物}在{城市}聊了很久", "{人物}最近在读《{图书}》", "{人物}打算下个月去{城市}旅游"),
    *("{公司}与{公司}正在洽谈合作", "{人物}昨天路过{学校}", "{人物}很喜欢听《{歌曲}》"),
    *("{人物}在{城市}的街头遇到了{人物}", "{城市}和{城市}之间新开通了一趟列车"),
    *("{人物}给{人物}推荐了《{影视作品}》", "《{影视作品}》和《{影视作品}》的票房相差不大"),
    *(
        "{人物}参观了{公司}的展厅",
        "{日期}，{人物}在{城市}参加了一场聚会",
        "{学校}的学生正在排练《{歌曲}》",
    ),
    *(
        "{人物}认为《{图书}》比《{图书}》好看",
        "{媒体}回顾了{日期}发生的大事",
        "{公司}的代表到{学校}做了讲座",
    ),
    *(
        "{人物}在{学校}门口等朋友",
        "{人物}把车停在{公司}楼下",
        "《{图书}》和《{影视作品}》都很值得一看",
    ),
    *("{人物}没有去过{国家}", "{人物}正在学习{语言}", "{人物}和{人物}是同一趟航班的乘客"),
    *("{产品}最近降价了", "{人物}买了一台{产品}", "大家在讨论{奖项}花落谁家", "{城市}离{城市}不远"),
)
_DOUBTS = (
    *("网传{c}，目前没有证据", "{c}的消息是假的", "没有资料能证明{c}", "如果{c}，事情就会简单得多"),
    *("要是{c}就好了", "有人误以为{c}，其实不然", "{c}的说法并不属实", "谁也不能确定{c}"),
    *(
        "有网友问：{c}吗？",
        "官方否认{c}",
        "并没有{c}这回事",
        "{c}只是一个传闻",
        "假如{c}，你会怎么看",
    ),
    *("{c}的传言已被辟谣", "有人猜测{c}，但没有得到证实", "难道{c}？恐怕不是"),
)
_QUESTIONS = (
    *("{s}的{n}是谁，目前还没有公布", "大家都很好奇{s}的{n}", "关于{s}的{n}，资料里没有提到"),
    *("{s}的{n}不是{o}", "{s}的{n}并非{o}", "{o}并不是{s}的{n}", "你知道{s}的{n}吗"),
)
_TIMES = (
    "今天",
    "昨天",
    "明天",
    "上周末",
    "这几天",
    "傍晚",
    "清晨",
    "中午",
    "入秋以来",
    "最近",
    "昨夜",
)
_SCENES = (
    *("多云转晴，最高气温{d}摄氏度", "下了一场小雨，空气很清新", "风有点大，出门记得多穿衣服"),
    *("天气闷热，大家都不愿意出门", "路上堵车堵了{d}分钟", "超市里的水果涨了{d}元", "地铁里人很多"),
    *("图书馆里坐满了人", "公园里的花都开了", "气温下降了{d}度", "外面安静得只听见风声"),
    *(
        "菜市场比平时热闹",
        "小区停了{d}个小时的水",
        "孩子们在操场上放风筝",
        "雾很大，能见度不足{d}米",
    ),
)
_OPINIONS = (
    *("学习新知识需要耐心", "读书可以让人内心平静", "早睡早起对身体有好处", "这家餐馆的味道一般"),
    *("旅行的意义在于放松心情", "努力不一定成功，但放弃一定失败", "合理安排时间非常重要"),
    *("这道题有{d}种解法", "我花了{d}天才读完那本书", "选择比努力更重要", "多喝水有益健康"),
    *("电影院旁边新开了一家咖啡店", "会议推迟到下午{d}点", "坚持锻炼{d}天就能看到变化"),
    *("阅读和写作是相辅相成的", "谁也不知道答案", "这件事还要再等{d}天才有结果"),
)
_FRAMES = (
    "{x}",
    "{x}",
    "我觉得{x}",
    "常言道，{x}",
    "说实话，{x}",
    "朋友对我说，{x}",
    "看来{x}",
    "据说{x}",
)
_ENDS = ("。",) * 18 + ("！", "")


class Surroundings:
    """Openers, closers and sentences without triplets.

    Args:
        domain: Types of entities.
        world: Relations, and objects that a subject does not have.
        names: Where names come from.
        random: Numbers from 0 to 1.
        difficulty: How often which of them occurs.
    """

    def __init__(
        self,
        domain: Domain,
        world: InventedWorld,
        names: NameSource,
        random: Callable[[], float],
        difficulty: Difficulty,
    ) -> None:
        self._world = world
        self._with_nouns = tuple(option for option in world.options if option.nouns)
        self._names = names
        self._pick = names.pick
        self._random = random
        self._difficulty = difficulty
        self._openers = _split_slots(_DISTRACTING_OPENERS)
        self._closers = _split_slots(_DISTRACTING_CLOSERS)
        self._meetings = _split_slots(_MEETINGS)
        self._neutral_types = tuple(t for t in domain.types.values() if t.neutral)

    def wrap(self, body: str, mentions: list[Mention]) -> str:
        """A whole sentence: perhaps an opener, the clauses, perhaps a closer, an end mark."""
        difficulty = self._difficulty
        if self._random() < difficulty.opener_rate:
            body = self._choose(self._openers, _OPENERS, mentions) + body
        if self._random() < difficulty.closer_rate:
            body += self._choose(self._closers, _CLOSERS, mentions)
        return body + self._pick(_ENDS)

    def write_unrelated(self, clauses: ClauseWriter, mentions: list[Mention]) -> str:
        """A whole sentence that states no relation."""
        chance = self._random()
        if chance < 0.2:
            text = self._everyday()
        elif chance < 0.4 and self._neutral_types:
            text = self._neutral(mentions)
        elif chance < 0.65:
            text = self._fill(self._pick(self._meetings), mentions)
        elif chance < 0.9 or not self._with_nouns:
            clause = clauses.write_doubtful(mentions)
            text = self._everyday() if clause is None else self._pick(_DOUBTS).format(c=clause)
        else:
            text = self._question(mentions)
        if self._random() < self._difficulty.opener_rate / 2:
            text = self._choose(self._openers, _OPENERS, mentions) + text
        return text if text.endswith("？") else text + self._pick(_ENDS)

    def _choose(
        self,
        distracting: tuple[tuple[str, ...], ...],
        plain: tuple[str, ...],
        mentions: list[Mention],
    ) -> str:
        if self._random() < self._difficulty.distractor_rate:
            return self._fill(self._pick(distracting), mentions)
        return self._pick(plain)

    def _fill(self, parts: tuple[str, ...], mentions: list[Mention]) -> str:
        filled = list(parts)
        for index in range(1, len(parts), 2):
            filled[index] = self._names.draw(parts[index])
            mentions.append((filled[index], parts[index]))
        return "".join(filled)

    def _everyday(self) -> str:
        if self._random() < 0.5:
            text = self._pick(_TIMES) + self._pick(_SCENES)
        else:
            text = self._pick(_FRAMES).format(x=self._pick(_OPINIONS))
        return text.replace("{d}", str(self._names.number(2, 39)))

    def _neutral(self, mentions: list[Mention]) -> str:
        entity = self._pick(self._neutral_types)
        name = self._names.draw(entity.kind)
        mentions.append((name, entity.name))
        text = entity.mark.format(name) + self._pick(entity.neutral)
        if self._random() < 0.3 and entity.pronouns:
            text += "，" + self._pick(entity.pronouns) + self._pick(entity.neutral)
        return text

    def _question(self, mentions: list[Mention]) -> str:
        option = self._pick(self._with_nouns)
        name = self._names.draw(option.subject.kind)
        mentions.append((name, option.subject.name))
        template = self._pick(_QUESTIONS)
        if "是谁" in template and option.object.name != "人物":
            template = template.replace("是谁", "")
        wrong = self._world.draw_wrong(option, name) if "{o}" in template else None
        if wrong is not None:
            mentions.append((wrong, option.object.name))
        elif "{o}" in template:
            template = _QUESTIONS[1]
        return template.format(
            s=option.subject.mark.format(name),
            n=self._pick(option.nouns),
            o="" if wrong is None else option.object.mark.format(wrong),
        )


def _split_slots(texts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Texts split at their slots: every second part is the kind of a name."""
    return tuple(tuple(text.replace("}", "{").split("{")) for text in texts)
